"""What every format is written from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

DATA_FOLDER = "data"


class ExportedLabel(TypedDict):
    """A label under its name in the vocabulary."""

    name: str
    label: str
    """The label as the recognizer spelled it."""
    score: float | None
    """The label's score; None where it is no finite number, which JSON cannot say."""
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
    """Names that are true of the image; None where no truth was given, an empty list where nothing is there."""
    original: str
    """Where the original lies at the source; `SHARD#KEY` within a shard."""
    file: str | None = None
    """Name of the image's copy in the folder `data`; None where it was not copied there."""
    data: bytes | None = None
    """Encoded bytes of the image, for a format that holds images itself; None for others."""

    @property
    def address(self) -> str:
        """Path of its copy, relative to the export; where the original lies if it was not copied."""
        return self.original if self.file is None else f"{DATA_FOLDER}/{self.file}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an export comes from."""

    run: str
    vocabulary: str
    """Version of the vocabulary that gives the names."""
    folder: str
    """Name of the export's folder."""
    labels: str = "open"
    """Which labels: what the recognizer wrote of itself (open), names of a list (listed), or both."""

    @property
    def description(self) -> str:
        kinds = {"open": "labels", "listed": "listed labels", "both": "open and listed labels"}[self.labels]
        return f"{kinds} of run {self.run} by tagstream, vocabulary {self.vocabulary}"
