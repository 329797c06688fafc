"""How `tagstream sql` prints what a query gives."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobs.sql import sql
from pipeline.store import Store
from tests.fixtures.tables import commit_shard, run_record


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sql") / "store"
    store = Store(str(folder))
    store.create_run(run_record("run-1"))
    commit_shard(store, "run-1", "0")
    return str(folder)


def run(store: str, query: str, output: str = "table") -> Result:
    return CliRunner().invoke(sql, [store, query, "--format", output], catch_exceptions=False)


def table(store: str, query: str) -> list[str]:
    return run(store, query).stdout.splitlines()


def as_json(store: str, query: str) -> list[dict[str, Any]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no json")

    rows: list[dict[str, Any]] = json.loads(run(store, query, "json").stdout, parse_constant=refuse)
    return rows


def as_csv(store: str, query: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(run(store, query, "csv").stdout)))


class TestTable:
    """For reading on a terminal."""

    def test_texts_stand_left_and_numbers_right(self, store: str) -> None:
        assert table(store, "VALUES ('a', 1, 0.5::DOUBLE), ('bcd', 100, 0.123456789::DOUBLE)") == [
            "col0  col1     col2",
            "----  ----  -------",
            "a        1      0.5",
            "bcd    100  0.12346",
        ]

    def test_decimals_stand_right_too(self, store: str) -> None:
        assert table(store, "SELECT 1.5 AS long_name")[2] == "      1.5"

    def test_null_is_blank(self, store: str) -> None:
        assert table(store, "SELECT NULL AS a, 'x' AS b")[2] == "   x"

    def test_a_list_is_written_with_commas(self, store: str) -> None:
        assert table(store, "SELECT ['cat', 'dog'] AS a")[2] == "cat, dog"

    def test_a_result_without_rows_is_its_header(self, store: str) -> None:
        assert table(store, "SELECT 1 AS a WHERE false") == ["a", "-"]

    def test_control_characters_do_not_reach_the_terminal(self, store: str) -> None:
        lines = table(store, "SELECT 'a\n' || chr(27) || '[31mred' || chr(9) || 'b' AS text")
        assert lines[2] == "a  [31mred b"

    def test_a_wide_cell_is_cut_to_a_hundred_characters(self, store: str) -> None:
        lines = table(store, "SELECT repeat('x', 100) AS a UNION ALL SELECT repeat('x', 101) ORDER BY a")
        assert lines[2:] == ["x" * 100, "x" * 97 + "..."]

    def test_of_many_rows_the_first_two_hundred_are_shown_and_the_rest_is_told_of(self, store: str) -> None:
        result = run(store, "SELECT range AS n FROM range(201)")
        assert len(result.stdout.splitlines()) == 202
        assert result.stderr == "(the first 200 rows; --format csv prints all)\n"

    def test_two_hundred_rows_are_all(self, store: str) -> None:
        result = run(store, "SELECT range AS n FROM range(200)")
        assert (len(result.stdout.splitlines()), result.stderr) == (202, "")


class TestCsv:
    """For other programs."""

    def test_every_row_is_printed(self, store: str) -> None:
        rows = as_csv(store, "SELECT range AS n FROM range(2500)")
        assert rows == [["n"], *([str(number)] for number in range(2500))]

    def test_text_comes_back_as_it_was(self, store: str) -> None:
        assert as_csv(store, "SELECT 'a, \"b\"\nc' AS x, 'größe' AS y") == [["x", "y"], ['a, "b"\nc', "größe"]]

    def test_null_is_empty_and_nothing_is_cut(self, store: str) -> None:
        assert as_csv(store, "SELECT NULL AS a, repeat('x', 500) AS b")[1] == ["", "x" * 500]

    def test_lists_and_structs_are_json(self, store: str) -> None:
        query = (
            "SELECT ['ä', NULL] AS a, {'x': 1.5, 'y': DATE '2026-01-02'} AS b, [TIMESTAMP '2026-01-02 03:04:05'] AS c"
        )
        assert [json.loads(cell) for cell in as_csv(store, query)[1]] == [
            ["ä", None],
            {"x": 1.5, "y": "2026-01-02"},
            ["2026-01-02 03:04:05"],
        ]


class TestJson:
    """For programs that want types."""

    def test_it_is_one_list_of_objects(self, store: str) -> None:
        query = 'SELECT "index", key, truth, stage FROM images ORDER BY ALL'
        assert as_json(store, query) == [
            {"index": number, "key": f"0-{number}", "truth": ["cat", "dog"], "stage": None} for number in range(2)
        ]

    def test_a_result_without_rows_is_an_empty_list(self, store: str) -> None:
        assert as_json(store, "SELECT 1 AS a WHERE false") == []

    def test_numbers_are_numbers(self, store: str) -> None:
        query = "SELECT 1.5 AS a, 9007199254740993 AS b, true AS c, [0.5] AS d, {'x': 2.5} AS e, 1::HUGEINT AS f"
        assert as_json(store, query) == [
            {"a": 1.5, "b": 9007199254740993, "c": True, "d": [0.5], "e": {"x": 2.5}, "f": 1}
        ]

    def test_what_is_no_number_is_null(self, store: str) -> None:
        query = "SELECT 'nan'::DOUBLE AS a, 'inf'::FLOAT AS b, ['-inf'::DOUBLE, 1.0] AS c"
        assert as_json(store, query) == [{"a": None, "b": None, "c": [None, 1.0]}]

    def test_text_may_hold_any_character(self, store: str) -> None:
        assert as_json(store, "SELECT 'a\n\"größe\"' || chr(27) || '😀' AS x") == [{"x": 'a\n"größe"\x1b😀'}]

    def test_columns_of_one_name_are_all_there(self, store: str) -> None:
        assert as_json(store, "SELECT 1 AS a, 2 AS a, 3 AS a_1") == [{"a": 1, "a_1": 2, "a_1_1": 3}]

    def test_times_are_text(self, store: str) -> None:
        assert as_json(store, "SELECT DATE '2026-01-02' AS a") == [{"a": "2026-01-02"}]
