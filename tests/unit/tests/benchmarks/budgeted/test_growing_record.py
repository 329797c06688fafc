"""The record has all that is known after every event."""

from __future__ import annotations

import pytest

from tests.benchmarks.budgeted.events import Event
from tests.benchmarks.budgeted.growing_record import GrowingRecord, Table


@pytest.fixture
def record(tmp_path):
    table = Table("Ways", ("way", "images/s", "GiB"), {"way a": "a", "way b": "b"}, "A note.")
    return GrowingRecord("Speed", [table], tmp_path / "record.md")


def rows(path):
    return [line for line in path.read_text().splitlines() if line.startswith("|")][2:]


def test_the_file_has_each_row_as_soon_as_it_is_told(record, tmp_path):
    record.take(Event("text", text="- hardware: a card"))
    assert record.take(Event("row", "way a", ("a", "500", "8"))) == "a | 500 | 8"
    assert (tmp_path / "record.md").read_text() == (
        "# Speed\n\n- hardware: a card\n\n## Ways\n\n"
        "| way | images/s | GiB |\n| ---: | ---: | ---: |\n| a | 500 | 8 |\n\nA note.\n"
    )


def test_a_failure_is_a_row_that_says_why(record, tmp_path):
    told = record.take(Event("failed", "way b", text="RuntimeError: no kernel |\n at all"))
    assert told == "way b failed: RuntimeError: no kernel / at all"
    assert rows(tmp_path / "record.md") == ["| b | failed: RuntimeError: no kernel / at all |  |"]


def test_what_would_break_a_table_is_written_otherwise(record, tmp_path):
    record.take(Event("row", "way a", ("a", "x | y", "1\n2")))
    assert rows(tmp_path / "record.md") == ["| a | x / y | 1 2 |"]


def test_rows_stand_in_the_order_of_the_table_whatever_came_first(record, tmp_path):
    record.take(Event("row", "way b", ("b", "1", "1")))
    record.take(Event("row", "way a", ("a", "2", "2")))
    assert rows(tmp_path / "record.md") == ["| a | 2 | 2 |", "| b | 1 | 1 |"]


def test_beginnings_and_ends_are_nothing_to_tell(record):
    assert record.take(Event("begin", "way a")) is None
    assert record.take(Event("end", "way a")) is None
