"""Rows as CSV, JSON and Parquet: what is read back is what was written."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.console.row_formats import write_csv, write_json, write_parquet
from pipeline.errors import TagstreamError

# Text as DuckDB has it: any character but lone surrogates.
TEXTS = st.lists(st.tuples(st.text(), st.text()), max_size=5)
COLUMNS = ("a", "b")


@settings(max_examples=100)
@given(TEXTS)
@example([("carriage\rreturn", "both\r\n"), ("\r", "")])
@example([('"quoted"', "a,b"), ("", "")])
def test_csv_comes_back_as_it_was(rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    n_rows = write_csv(COLUMNS, rows, stream)
    stream.seek(0)
    assert [tuple(row) for row in csv.reader(stream)] == [COLUMNS, *rows]
    assert n_rows == len(rows)


@settings(max_examples=100)
@given(TEXTS)
@example([("\u202etxt.exe", "\x9b31m"), ("\u2028", "\U000e0041")])
def test_json_comes_back_as_it_was_and_has_no_character_that_steers(rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    n_rows = write_json(COLUMNS, rows, stream)
    text = stream.getvalue()
    assert [tuple(row.values()) for row in json.loads(text)] == rows
    assert text.replace("\n", "").isprintable()
    assert len(text.split("\n")) == max(len(rows), 1) + 1
    assert n_rows == len(rows)


@settings(max_examples=100)
@given(TEXTS)
def test_parquet_comes_back_as_it_was(rows: list[tuple[str, str]]) -> None:
    table = pa.table({name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(COLUMNS)})
    stream = io.BytesIO()
    n_rows = write_parquet(table.to_reader(), stream)
    assert pq.read_table(stream).equals(table)
    assert n_rows == len(rows)


def test_parquet_columns_of_one_name_are_all_there() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    stream = io.BytesIO()
    write_parquet(table.to_reader(), stream)
    assert pq.read_table(stream).to_pylist() == [{"a": 1, "a_1": 2}]


def test_a_type_that_parquet_has_not_is_one_sentence() -> None:
    table = pa.table({"a": pa.array([], pa.month_day_nano_interval())})
    with pytest.raises(TagstreamError, match=r"Parquet has no such type: .*; cast the column to another") as caught:
        write_parquet(table.to_reader(), io.BytesIO())
    assert "\n" not in str(caught.value)
