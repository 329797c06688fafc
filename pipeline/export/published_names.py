"""Names as others get to see them: without sensitive ones, and in the language that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import Vocabulary


class PublishedNames:
    """Publishes labels of images one after another.

    Attributes: `n_sensitive`, labels that were left out so far.
    """

    def __init__(self, vocabulary: Vocabulary, language: str | None, keeps_sensitive: bool) -> None:
        """Raises TagstreamError for a language in which the vocabulary calls nothing anything."""
        self.n_sensitive = 0
        self._hidden = frozenset() if keeps_sensitive else vocabulary.sensitive
        self._display: Mapping[str, str] = {}
        if language is not None:
            if language not in vocabulary.display:
                known = ", ".join(sorted(vocabulary.display)) or "none"
                raise TagstreamError(
                    f"the language is {language}, and the vocabulary {vocabulary.title} has names in {known}; add "
                    f"[display.{language}] to it"
                )
            self._display = vocabulary.display[language]

    def publish(self, labels: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Labels (anything with a `name`) without sensitive ones; a name that has no other one is written as it is."""
        shown = [label for label in labels if label["name"] not in self._hidden]
        self.n_sensitive += len(labels) - len(shown)
        return [{**label, "name": self._display.get(label["name"], label["name"])} for label in shown]
