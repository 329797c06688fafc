"""What a report does not show: names that the vocabulary calls sensitive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.catalog.connection import Connection, query_rows
from pipeline.naming.vocabulary import Vocabulary
from pipeline.text import counted


class HiddenNames:
    """Leaves sensitive names out of what a report shows, and knows which these were."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._left_out: set[str] = set()

    @property
    def sentence(self) -> str | None:
        """How many names are left out; None where there are none."""
        if not self._left_out:
            return None
        names, are = counted(len(self._left_out), "name"), "is" if len(self._left_out) == 1 else "are"
        return f"{names} that the vocabulary {self._vocabulary.version} calls sensitive {are} left out"

    def find(self, connection: Connection, runs: Sequence[str]) -> None:
        """Counts the sensitive names among the labels of some runs and in the truth of the report's."""
        if self._vocabulary.sensitive:
            self._left_out |= {row["name"] for row in query_rows(connection, "report_sensitive", {"runs": runs})}

    def leave_out(self, image: Mapping[str, Any]) -> dict[str, Any]:
        """An image, a row of `report_images.sql`, without sensitive labels.

        Labels behind them tell as `left_out` how many names that are. A sensitive name of the image's truth is one of
        those that are not shown and counted all the same.
        """
        hidden = [name for name in image["truth"] if name["name"] in self._vocabulary.sensitive]
        others = image["other_labels"]
        return {
            **image,
            "labels": self._shown(image["labels"]),
            "other_labels": None if others is None else self._shown(others),
            "truth": [name for name in image["truth"] if name not in hidden],
            "n_more_truth": (image["n_more_truth"] or 0) + len(hidden),
            "n_more_missed": (image["n_more_missed"] or 0) + sum(name["rank"] is None for name in hidden),
        }

    def _shown(self, labels: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        shown: list[Mapping[str, Any]] = []
        names: set[str] = set()
        for label in labels:
            # By what the recognizer wrote: a report shows labels that the vocabulary denies, too, which have no name.
            if not self._vocabulary.is_sensitive(label["label"]):
                shown.append({**label, "left_out": len(names)} if names else label)
                continue
            name = self._vocabulary.unlimited_name(label["label"])
            self._left_out.add(name)
            if not label["is_denied"]:
                names.add(name)
        return shown
