"""What a process that measures tells the one that watches it: lines of JSON behind a mark."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

MARK = "@measured "


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a measure.

    kind: it begins, has a row of its table, ends, or failed with `text`. "text" is a line of the record's head. "died"
        is told of a process that ended by itself, by its watcher, as "failed" with the end of what it printed.
    cells: of a row, in the order of the table's columns.
    """

    kind: Literal["begin", "row", "end", "failed", "text", "died"]
    measure: str = ""
    cells: tuple[str, ...] = ()
    text: str = ""

    def to_line(self) -> str:
        return MARK + json.dumps(asdict(self))


def read_line(line: str) -> Event | None:
    """The event that a line tells, or None where it is some other output."""
    if not line.startswith(MARK):
        return None
    fields = json.loads(line.removeprefix(MARK))
    return Event(**{**fields, "cells": tuple(fields["cells"])})
