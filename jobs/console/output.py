"""Rows on the terminal and for other programs: aligned columns, CSV, JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from pipeline.text import printable

if TYPE_CHECKING:
    from pipeline.catalog.connection import Connection

Rows = Iterable[Sequence[Any]]
_ROWS_AT_ONCE = 1000
_MAX_TABLE_ROWS = 200
_MAX_CELL_COLUMNS = 100


def print_result(result: Connection, output: str = "table") -> int:
    """Prints what a query gave, as `print_rows` does."""
    return print_rows(*columns_and_rows(result), output)


def print_rows(columns: Sequence[str], rows: Rows, output: str = "table") -> int:
    """Prints rows as a "table" (aligned columns, at most 200 rows), "csv" or "json"; returns how many."""
    from jobs.console.row_formats import write_csv, write_json

    if output == "table":
        return _print_table(columns, rows)
    n_rows = {"csv": write_csv, "json": write_json}[output](columns, rows, sys.stdout)
    sys.stdout.flush()
    return n_rows


def columns_and_rows(result: Connection) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Names of a result's columns, and its rows as they are fetched."""
    return [column[0] for column in result.description or []], _fetched(result)


def _fetched(result: Connection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def _print_table(columns: Sequence[str], rows: Rows) -> int:
    from wcwidth import ljust, rjust, width

    rows = list(islice(rows, _MAX_TABLE_ROWS + 1))
    header, *shown = [[_cell(value) for value in row] for row in [columns, *rows[:_MAX_TABLE_ROWS]]]
    widths = [max(width(row[i]) for row in [header, *shown]) for i in range(len(columns))]
    is_number = [any(isinstance(row[i], int | float | Decimal) for row in rows) for i in range(len(columns))]
    for row in [header, ["-" * wide for wide in widths], *shown]:
        cells = zip(row, widths, is_number, strict=True)
        line = "  ".join(rjust(cell, wide) if right else ljust(cell, wide) for cell, wide, right in cells)
        click.echo(line.rstrip())
    if len(rows) > _MAX_TABLE_ROWS:
        click.echo(f"(the first {_MAX_TABLE_ROWS} rows; --format csv prints all)", err=True)
    return len(shown)


def _cell(value: Any) -> str:
    """A value as one short piece of a line."""
    from wcwidth import clip, width

    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    # Marks that combine take no width, however many they are.
    if len(text) <= _MAX_CELL_COLUMNS and width(text) <= _MAX_CELL_COLUMNS:
        return text
    return clip(text[: _MAX_CELL_COLUMNS - 3], 0, _MAX_CELL_COLUMNS - 3) + "..."
