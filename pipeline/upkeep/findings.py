"""What a verification tells of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

_NOTES = frozenset({"leftover", "foreign"})


class Mend(StrEnum):
    """What puts right what was found."""

    TAKE_OUT = "--repair takes it out, the next job labels it anew"
    TAKE_OUT_LISTED = "--repair takes it out, label with --names scores its shards again"
    DELETE = "--repair deletes it"
    NAME_ANEW = "--repair makes it anew from the labels"
    BY_HAND = "restore it from a copy; the command that made the run writes it again, but not for a folder of images"
    LIST_AGAIN = "label with --names and the same list writes it again"
    DRAW_AGAIN = "once it is deleted, the same `tagstream sample` writes it again"
    IMPORT_AGAIN = "once it is deleted, `tagstream review import` takes the people's file again"
    NOTHING = "it is left alone, nobody reads it"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    """unreadable, schema, metadata, rows, missing, spellings or record: damage; leftover or foreign: no damage."""
    path: str
    """Path of the file below the store."""
    message: str
    mend: Mend
    name: str = ""
    """Name of the file among the run's images that the finding belongs to."""

    @property
    def is_damage(self) -> bool:
        return self.kind not in _NOTES


@dataclass(slots=True)
class Verification:
    """What was read of a run, and what was found."""

    run: str
    n_files: int = 0
    n_images: int = 0
    n_labels: int = 0
    n_listed_files: int = 0
    n_listed: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not any(finding.is_damage for finding in self.findings)
