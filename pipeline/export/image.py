"""What every format is written from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

DATA_FOLDER = "data"


class ExportedLabel(TypedDict):
    """A label under its name in the vocabulary."""

    name: str
    label: str
    """As the recognizer spelled it."""
    score: float | None
    """None where it is no finite number, which JSON cannot say."""
    rank: int


class GivenLabel(TypedDict):
    """A given truth under its name in the vocabulary."""

    name: str
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedImage:
    """An image with its labels, best first."""

    image_id: int
    shard: str
    index: int
    key: str
    width: int | None
    height: int | None
    n_bytes: int | None
    caption: str | None
    labels: list[ExportedLabel]
    truth: list[GivenLabel] | None
    """None where no truth was given; an empty list says that nothing is there."""
    original: str
    """Where it lies at the source; `SHARD#KEY` within a shard."""
    file: str | None = None
    """Name of its copy in the folder `data`."""
    data: bytes | None = None
    """Its encoded bytes, for a format that holds images itself."""

    @property
    def place(self) -> str:
        """Its copy, relative to the export; its original where it was not copied."""
        return self.original if self.file is None else f"{DATA_FOLDER}/{self.file}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an export comes from."""

    run: str
    vocabulary: str
    """Its version."""
    folder: str
    """Name of the export's folder."""

    @property
    def description(self) -> str:
        return f"labels of run {self.run} by tagstream, vocabulary {self.vocabulary}"
