"""A list of names of a user's own, which every image gets scores for.

A list is no part of a run's fingerprint: it may come to a run later, and may change. Its version is made of all that
decides the listed labels, so that labels of two lists never stand under one version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.text import one_line
from schemas import ListRecord

# A rank is an int16.
MAX_NAMES = 32_767
DEFAULT_TOP = 20
_VOCABULARY_SUFFIXES = (".toml", ".csv")
_NOT_IN_A_PATH = re.compile(r"[^A-Za-z0-9._]+")
_MAX_TITLE_CHARACTERS = 60
_N_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class NameList:
    """Names to score, and how many of them an image keeps."""

    title: str
    """What the list is called: letters, digits, dots, underscores and hyphens."""
    names: Mapping[str, tuple[str, ...]]
    """Spellings of each name, the name itself first; the probabilities of its spellings are summed."""
    top: int = DEFAULT_TOP
    """How many names an image keeps, the most probable ones; 0 keeps any number."""
    min_score: float = 0.0
    """The lowest score that is kept, 0 to 1."""

    @property
    def version(self) -> str:
        """The title with a digest of names, spellings and limits: `animals-1a2b3c4d`."""
        rules = {
            "names": {name: sorted(spellings) for name, spellings in self.names.items()},
            "top": self.top,
            "min_score": self.min_score,
        }
        digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
        return f"{self.title}-{digest[:_N_DIGITS]}"

    def spellings(self) -> list[str]:
        """Every spelling of every name."""
        return [spelling for spellings in self.names.values() for spelling in spellings]

    def best(self, log_probs: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The names that images keep, image by image, the most probable first, equally probable ones in list order.

        Args:
            log_probs: log probability of each name, [images, names].

        Returns the image of each kept name and its place in the list.
        """
        order = np.argsort(-log_probs, axis=1, kind="stable")[:, : self.top or None]
        is_kept = np.exp(np.take_along_axis(log_probs, order, axis=1)) >= self.min_score
        return np.nonzero(is_kept)[0], order[is_kept]

    def record(self, run: str, created: str) -> ListRecord:
        """What a run keeps of the list.

        Args:
            created: UTC, ISO 8601.
        """
        names = {name: list(spellings) for name, spellings in self.names.items()}
        return ListRecord(
            run=run,
            version=self.version,
            created=created,
            title=self.title,
            names=names,
            top=self.top,
            min_score=self.min_score,
        )

    @classmethod
    def of(cls, record: ListRecord) -> Self:
        """The list that a run keeps."""
        names = {name: tuple(spellings) for name, spellings in record.names.items()}
        return cls(title=record.title, names=names, top=record.top, min_score=record.min_score)


def read_names(path: str | Path, top: int = DEFAULT_TOP, min_score: float = 0.0) -> NameList:
    """A list from a file: one name a line, or a vocabulary (.toml, .csv) with aliases and wider terms.

    Of a vocabulary the names are what labels are called in it: names of aliases, names that have a wider term, these
    terms, and names that it allows, without those that it denies or does not allow. Aliases are spellings of their
    names.

    Args:
        top: how many names an image keeps; 0 keeps any number.
        min_score: the lowest score that is kept.

    Raises TagstreamError where there are no names, or too many.
    """
    path = Path(path)
    if path.suffix.lower() in _VOCABULARY_SUFFIXES:
        names = _names_of(read_vocabulary(path))
    else:
        names = {name: (name,) for name in sorted(set(_lines(path)))}
    if not 1 <= len(names) <= MAX_NAMES:
        raise TagstreamError(f"{path} has {len(names):,} names; expected 1 to {MAX_NAMES:,}, one a line")
    title = _NOT_IN_A_PATH.sub("-", path.stem).strip("-._")[:_MAX_TITLE_CHARACTERS] or "names"
    return NameList(title=title, names=names, top=top, min_score=min_score)


def _lines(path: Path) -> list[str]:
    """The names of a text file: its lines without the space around them, empty ones left out."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TagstreamError(f"cannot read the names {path}: {one_line(error)}") from error
    return [name for line in lines if (name := line.strip())]


def _names_of(vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    wider = [name for pair in vocabulary.wider.items() for name in pair]
    spellings: dict[str, list[str]] = {}
    for name in (*vocabulary.aliases.values(), *wider, *(vocabulary.allow or ())):
        if name not in vocabulary.deny and (vocabulary.allow is None or name in vocabulary.allow):
            spellings.setdefault(name, [name])
    for alias, name in vocabulary.aliases.items():
        if name in spellings and alias not in spellings[name]:
            spellings[name].append(alias)
    return {name: tuple(found) for name, found in sorted(spellings.items())}
