"""Rows as CSV, JSON and Parquet, written one by one as they are fetched; readers get the exact text back."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import IO, Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import TagstreamError
from pipeline.text import one_line, printable

Rows = Iterable[Sequence[Any]]


def write_csv(columns: Sequence[str], rows: Rows, stream: TextIO) -> int:
    """Writes rows as CSV. Lists and structs are JSON in their cells; null is an empty cell, as empty text is.

    Returns: the number of rows.
    """
    writer = csv.writer(stream, lineterminator="\n")
    # Readers end a row at a carriage return, which the default writer does not quote.
    quoting_writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    n_rows = 0
    writer.writerow(columns)
    for row in rows:
        cells = [_json(value) if isinstance(value, list | dict) else value for value in row]
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoting_writer if has_return else writer).writerow(cells)
        n_rows += 1
    return n_rows


def write_json(columns: Sequence[str], rows: Rows, stream: TextIO) -> int:
    """Writes rows as a list of objects, one a line. Returns: the number of rows."""
    names = distinct(columns)
    n_rows = 0
    for row in rows:
        stream.write((",\n " if n_rows else "[") + _json(dict(zip(names, row, strict=True))))
        n_rows += 1
    stream.write("]\n" if n_rows else "[]\n")
    return n_rows


def write_parquet(reader: pa.RecordBatchReader, stream: IO[bytes]) -> int:
    """Writes batches as Parquet. Returns: the number of rows.

    Raises TagstreamError for a type that Parquet does not have, and where the reader fails.
    """
    names = distinct(reader.schema.names)
    schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])
    n_rows = 0
    try:
        with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            for batch in _batches(reader):
                writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                n_rows += batch.num_rows
    except pa.ArrowNotImplementedError as error:
        raise TagstreamError(f"Parquet has no such type: {one_line(error)}; cast the column to another") from error
    return n_rows


def distinct(columns: Sequence[str]) -> list[str]:
    """Column names that are all different: repeated ones are numbered, as in run, run_1."""
    names: list[str] = []
    for column in columns:
        number, name = 0, column
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (OSError, pa.ArrowException) as error:
        # DuckDB's errors arrive as these through Arrow's stream.
        raise TagstreamError(f"the query failed: {error}") from error


def _json(value: Any) -> str:
    text = json.dumps(_plain(value), default=str, ensure_ascii=False)
    # JSON has an escape for every character.
    return printable(text, lambda character: json.dumps(character)[1:-1])


def _plain(value: Any) -> Any:
    """A value that JSON can hold: decimals become floats; nan and infinity become null."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
