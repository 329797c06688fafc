"""Rows on the terminal and for other programs: aligned columns, CSV, JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any

import click
from wcwidth import clip, ljust, rjust, width

from jobs.console.row_formats import write_csv, write_json
from pipeline.catalog.connection import Connection
from pipeline.text import printable

Rows = Iterable[Sequence[Any]]
_ROWS_AT_ONCE = 1000
_MAX_TABLE_ROWS = 200
_MAX_CELL_COLUMNS = 100


def print_result(result: Connection, output: str = "table") -> int:
    """Prints the rows of a query, as `print_rows` does; returns how many."""
    return print_rows(*columns_and_rows(result), output)


def print_rows(columns: Sequence[str], rows: Rows, output: str = "table") -> int:
    """Prints rows as a "table" (aligned columns, at most 200 rows), "csv" or "json"; returns how many."""
    if output == "table":
        return _print_table(columns, rows)
    n_rows = {"csv": write_csv, "json": write_json}[output](columns, rows, sys.stdout)
    sys.stdout.flush()
    return n_rows


def columns_and_rows(result: Connection) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """The names of a result's columns, and its rows, fetched as they are asked for."""
    return [column[0] for column in result.description or []], _fetched(result)


def _fetched(result: Connection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def _print_table(columns: Sequence[str], rows: Rows) -> int:
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
    """A value as one cell of a table: one line, at most 100 columns wide."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    # Combining characters take no width, so that text of any length can be narrow.
    if len(text) <= _MAX_CELL_COLUMNS and width(text) <= _MAX_CELL_COLUMNS:
        return text
    return clip(text[: _MAX_CELL_COLUMNS - 3], 0, _MAX_CELL_COLUMNS - 3) + "..."
