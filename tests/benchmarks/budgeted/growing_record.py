"""A record of tables that is written anew after every row: what was measured survives what stops the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.budgeted.events import Event


@dataclass(slots=True)
class Table:
    """A table of a record.

    measures: what each measure is called in the first column, in the order of the rows.
    """

    title: str
    header: Sequence[str]
    measures: dict[str, str]
    note: str = ""
    rows: dict[str, list[Sequence[str]]] = field(default_factory=dict)

    def add(self, event: Event) -> bool:
        """Takes a row or a failure of one of its measures. Returns whether it did."""
        if event.measure not in self.measures or event.kind not in ("row", "failed"):
            return False
        cells: Sequence[str] = [_one_cell(cell) for cell in event.cells]
        if event.kind == "failed":
            nothing = [""] * (len(self.header) - 2)
            cells = (self.measures[event.measure], "failed: " + _one_cell(event.text), *nothing)
        self.rows.setdefault(event.measure, []).append(cells)
        return True

    def markdown(self) -> str:
        rows = [cells for measure in self.measures for cells in self.rows.get(measure, [])]
        lines = [self.header, ["---:"] * len(self.header), *rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join(part for part in (f"## {self.title}", table, self.note) if part)


class GrowingRecord:
    """Title, lines of where it was measured, and those tables that have measures. Takes the events of measures."""

    def __init__(self, title: str, tables: Sequence[Table], path: Path | None) -> None:
        """
        Args:
            path: the Markdown file that always has all that is known; None for none.
        """
        self._title, self._path = title, path
        self._tables = [table for table in tables if table.measures]
        self._head: list[str] = []

    def take(self, event: Event) -> str | None:
        """Adds what an event tells and returns a line to print of it, or None where there is nothing new."""
        line: str | None
        if event.kind == "text":
            self._head.append(event.text)
            line = event.text
        elif any(table.add(event) for table in self._tables):
            line = " | ".join(event.cells) or f"{event.measure} failed: {_one_cell(event.text)}"
        else:
            line = None
        if line is not None and self._path:
            self._path.write_text(self.markdown())
        return line

    def markdown(self) -> str:
        return (
            "\n\n".join([f"# {self._title}", "\n".join(self._head), *(table.markdown() for table in self._tables)])
            + "\n"
        )


def _one_cell(text: str) -> str:
    """Text that stands in one cell: on one line, not longer than 200 characters, without bars."""
    return " ".join(text.split()).replace("|", "/")[:200]
