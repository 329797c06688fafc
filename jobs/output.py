"""Rows on the terminal and for other programs: aligned columns, CSV, JSON."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.catalog import Connection

Rows = Iterable[Sequence[Any]]
_ROWS_AT_ONCE = 1000
_MAX_TABLE_ROWS = 200
_MAX_CELL_CHARACTERS = 100


def print_result(result: Connection, output: str = "table") -> None:
    """Prints what a query gave, as `print_rows` does."""
    columns = [column[0] for column in result.description or []]
    print_rows(columns, _fetched(result), output)


def print_rows(columns: Sequence[str], rows: Rows, output: str = "table") -> None:
    """Prints rows as a "table" (aligned columns, at most 200 rows), "csv" or "json"."""
    {"table": _print_table, "csv": _print_csv, "json": _print_json}[output](columns, rows)


def _fetched(result: Connection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def _print_table(columns: Sequence[str], rows: Rows) -> None:
    rows = list(islice(rows, _MAX_TABLE_ROWS + 1))
    shown = [[_cell(value) for value in row] for row in rows[:_MAX_TABLE_ROWS]]
    widths = [max(len(row[i]) for row in [columns, *shown]) for i in range(len(columns))]
    is_number = [any(isinstance(row[i], int | float | Decimal) for row in rows) for i in range(len(columns))]
    for row in [columns, ["-" * width for width in widths], *shown]:
        cells = zip(row, widths, is_number, strict=True)
        line = "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells)
        click.echo(line.rstrip())
    if len(rows) > _MAX_TABLE_ROWS:
        click.echo(f"(the first {_MAX_TABLE_ROWS} rows; --format csv prints all)", err=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    # One row a line, and nothing of a caption may steer the terminal.
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= _MAX_CELL_CHARACTERS else text[: _MAX_CELL_CHARACTERS - 3] + "..."


def _print_csv(columns: Sequence[str], rows: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_json(value) if isinstance(value, list | dict) else value for value in row])


def _print_json(columns: Sequence[str], rows: Rows) -> None:
    columns = _distinct(columns)
    separator = "["
    for row in rows:
        click.echo(separator + _json(dict(zip(columns, row, strict=True))), nl=False)
        separator = ",\n "
    click.echo("]" if separator != "[" else "[]")


def _json(value: Any) -> str:
    return json.dumps(_plain(value), default=str, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """A value as json has it: numbers are numbers, and what is no number is null."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _distinct(columns: Sequence[str]) -> list[str]:
    """Column names for one object; those of a name that others have too are numbered: run, run_1."""
    names: list[str] = []
    for column in columns:
        number, name = 0, column
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names
