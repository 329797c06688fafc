"""`tagstream sql`: a question to a store."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.catalog import Connection

_ROWS_AT_ONCE = 1000
_MAX_TABLE_ROWS = 200
_MAX_CELL_CHARACTERS = 100


@click.command(short_help="Ask a store in SQL.")
@click.argument("store")
@click.argument("query")
@click.option("--format", "output", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def sql(store: str, query: str, output: str) -> None:
    """Run one SQL QUERY (DuckDB's dialect) over STORE, local or s3://, and print what it gives.

    Views: images (one row a sample), labels (one row a label), rejects, truth (given labels), runs, jobs.

    \b
    tagstream sql STORE "SELECT label, count(*) AS n FROM labels GROUP BY label ORDER BY n DESC LIMIT 10"
    """
    from pipeline.catalog import open_store, run_query

    result = run_query(open_store(store), query)
    {"table": print_table, "csv": _print_csv, "json": _print_json}[output](result)


def _columns(result: Connection) -> list[str]:
    return [column[0] for column in result.description or []]


def _rows(result: Connection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def print_table(result: Connection) -> None:
    """Prints a result as aligned columns, at most 200 rows of it."""
    columns = _columns(result)
    rows = result.fetchmany(_MAX_TABLE_ROWS + 1)
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


def _print_csv(result: Connection) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_columns(result))
    for row in _rows(result):
        writer.writerow([_json(value) if isinstance(value, list | dict) else value for value in row])


def _print_json(result: Connection) -> None:
    columns = _distinct(_columns(result))
    separator = "["
    for row in _rows(result):
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


def _distinct(columns: list[str]) -> list[str]:
    """Column names for one object; those of a name that others have too are numbered: run, run_1."""
    names: list[str] = []
    for column in columns:
        number, name = 0, column
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names
