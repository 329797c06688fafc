"""How `tagstream sql` prints or writes what a query gives."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from jobs.verbs.sql import sql
from jobs.verbs.sql_query import run_interruptibly
from pipeline.catalog.connection import run_query
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, commit_shard, run_record

HOSTILE = [
    *('a "quoted", one', "it's", "new\nline", "carriage\rreturn", "both\r\n", "tab\there", " spaces ", "", "NULL"),
    *("😀", "👨\u200d👩\u200d👧", "❤\ufe0f", "日本語", "שלום عربي", "e\u0301", "=1+1", "\ufeffmark", "\x7f"),
    *("\x1b[31mred\x07", "\x9b2J", "\u202eevil", "\u2066x\u2069", "\u2028", "\U000e0041", "x" * 5000, "\u0301" * 5000),
]
ALL_LABELS = "SELECT label FROM labels ORDER BY rank"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sql") / "store"
    store = Store(str(folder))
    store.create_run(run_record("run-1"))
    commit_shard(store, "run-1", "0")
    return str(folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store whose only image has all the labels that are hard to show."""
    store = Store(str(tmp_path_factory.mktemp("hostile") / "store"))
    store.create_run(run_record("run-1"))
    commit_judged(store, "run-1", {"0": [{"labels": HOSTILE}]})
    return store.url


def run(store: str, query: str, output: str = "table") -> Result:
    return ask(store, query, "--format", output)


def ask(*arguments: object, typed: str | bytes = "") -> Result:
    return CliRunner().invoke(sql, list(map(str, arguments)), input=typed, catch_exceptions=False)


def refusal(*arguments: object, typed: str | bytes = "") -> str:
    """Why the command did not do it: wrong usage, or a sentence."""
    try:
        result = ask(*arguments, typed=typed)
    except TagstreamError as error:
        return str(error)
    assert result.exit_code != 0
    return result.stderr


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

    def test_wide_characters_are_counted_by_the_columns_that_they_take(self, store: str) -> None:
        assert table(store, "VALUES ('日本', 1), ('ab', 2), ('e\u0301', 3), ('😀', 4)")[2:] == [
            "日本     1",
            "ab       2",
            "e\u0301        3",
            "😀       4",
        ]
        assert table(store, "SELECT repeat('日', 50) AS a UNION ALL SELECT repeat('日', 51) ORDER BY a")[2:] == [
            "日" * 50,
            "日" * 48 + " ...",
        ]

    def test_marks_without_a_width_do_not_make_a_cell_endless(self, store: str) -> None:
        (cell,) = table(store, "SELECT 'a' || repeat('\u0301', 10000) AS a")[2:]
        assert len(cell) <= 100

    def test_hostile_labels_stay_one_a_line_and_steer_nothing(self, hostile: str) -> None:
        lines = run(hostile, "SELECT rank, label, 'end' AS last FROM labels ORDER BY rank").stdout.split("\n")
        assert len(lines) == 2 + len(HOSTILE) + 1
        assert all(line.isprintable() for line in lines)
        assert all(line.endswith("  end") for line in lines[2:-1])

    def test_hostile_names_of_columns_steer_nothing_either(self, hostile: str) -> None:
        header = table(hostile, 'SELECT 1 AS "a\n\x1b[31mb\u202e", 2 AS c')[0]
        assert header == "a  [31mb   c"

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

    def test_a_terminal_is_steered_by_nothing(self, hostile: str) -> None:
        printed = run(hostile, ALL_LABELS, "json").stdout
        assert printed.replace("\n", "").isprintable()


class TestHostileLabels:
    """What other programs read is what the labels are."""

    @pytest.mark.parametrize("place", ["printed", "written"])
    def test_csv_json_and_parquet_give_them_back_exactly(self, hostile: str, tmp_path: Path, place: str) -> None:
        contents = {}
        for name in ("csv", "json", "parquet"):
            if place == "printed":
                contents[name] = ask(hostile, ALL_LABELS, "--format", name).stdout_bytes
            else:
                ask(hostile, ALL_LABELS, "--out", tmp_path / f"x.{name}")
                contents[name] = (tmp_path / f"x.{name}").read_bytes()
        rows = list(csv.reader(io.StringIO(contents["csv"].decode(), newline="")))
        assert [row[0] for row in rows] == ["label", *HOSTILE]
        assert [row["label"] for row in json.loads(contents["json"])] == HOSTILE
        assert pq.read_table(io.BytesIO(contents["parquet"])).column("label").to_pylist() == HOSTILE

    def test_an_error_that_quotes_one_steers_nothing(self, hostile: str) -> None:
        error = refusal(hostile, "SELECT label::INT FROM labels WHERE label LIKE '%red%'")
        assert "Could not convert string ' [31mred ' to INT32" in error
        assert error.replace("\n", "").isprintable()


def test_a_storage_that_fails_is_told_of_in_one_line(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"{s3}/{tmp_path.name}/store")
    store.create_run(run_record("run-1"))
    generator = random.Random(0)
    # More than DuckDB keeps of a file that it has only looked at.
    commit_judged(
        store, "run-1", {"0": [{"labels": [], "caption": generator.randbytes(5000).hex()} for _ in range(500)]}
    )
    connection = open_store(store.url)

    def fail(*_: object) -> bytes:
        raise OSError("the network is down")

    monkeypatch.setattr("s3fs.core.S3File._fetch_range", fail)
    with pytest.raises(TagstreamError) as caught:
        run_interruptibly(connection, lambda: run_query(connection, "SELECT max(caption) FROM images").fetchall())
    assert str(caught.value) == "the query failed: OSError: the network is down"


class TestOut:
    """Results as files."""

    @pytest.mark.parametrize("name", ["x.csv", "x.json", "X.CSV"])
    def test_a_file_holds_what_is_printed_in_its_format(self, store: str, tmp_path: Path, name: str) -> None:
        query = "SELECT run, shard, truth, n_labels FROM images ORDER BY ALL"
        result = ask(store, query, "--out", tmp_path / name)
        assert result.stdout == f"2 rows in {tmp_path / name}\n"
        assert (tmp_path / name).read_text() == run(store, query, name.lower().removeprefix("x.")).stdout

    def test_parquet_keeps_the_types(self, store: str, tmp_path: Path) -> None:
        ask(store, 'SELECT run, truth, "index", n_labels FROM images ORDER BY key', "--out", tmp_path / "x.parquet")
        table = pq.read_table(tmp_path / "x.parquet")
        assert [str(field.type) for field in table.schema] == ["string", "list<element: string>", "int32", "int16"]
        assert table.to_pylist()[1] == {"run": "run-1", "truth": ["cat", "dog"], "index": 1, "n_labels": 2}

    def test_parquet_of_many_rows_is_written_in_parts(self, store: str, tmp_path: Path) -> None:
        result = ask(store, "SELECT range AS n FROM range(300000)", "--out", tmp_path / "x.parquet")
        assert result.stdout.startswith("300,000 rows in ")
        file = pq.ParquetFile(tmp_path / "x.parquet")
        assert file.num_row_groups > 1
        assert file.read().column("n").to_pylist() == list(range(300000))

    def test_a_result_without_rows_has_its_columns(self, store: str, tmp_path: Path) -> None:
        ask(store, "SELECT key, width FROM images WHERE false", "--out", tmp_path / "x.parquet")
        assert pq.read_table(tmp_path / "x.parquet").column_names == ["key", "width"]

    def test_a_format_can_be_given_where_the_name_has_none(self, store: str, tmp_path: Path) -> None:
        assert ask(store, "SELECT 1 AS a", "--out", tmp_path / "x.txt", "--format", "csv").stdout.startswith("1 row in")
        assert (tmp_path / "x.txt").read_text() == "a\n1\n"

    def test_a_result_may_lie_on_s3(self, s3: str, store: str, tmp_path: Path) -> None:
        url = f"{s3}/{tmp_path.name}/x.parquet"
        ask(store, "SELECT key FROM images ORDER BY key", "--out", url)
        assert pq.read_table(url).to_pydict() == {"key": ["0-0", "0-1"]}

    @pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.json"])
    def test_a_query_that_fails_on_its_way_leaves_nothing(self, store: str, tmp_path: Path, name: str) -> None:
        query = "SELECT CASE WHEN range < 500000 THEN 1 ELSE ('x' || range)::INT END FROM range(1000000)"
        error = refusal(store, query, "--out", tmp_path / name)
        assert error.startswith("the query failed: Conversion Error: Could not convert string 'x500000'")
        assert list(tmp_path.iterdir()) == []

    def test_into_the_store_nothing_is_written(self, store: str) -> None:
        before = sorted(Path(store).rglob("*"))
        assert "lies in the store" in refusal(store, "SELECT 1", "--out", f"{store}/labels/x.csv", "--overwrite")
        assert sorted(Path(store).rglob("*")) == before

    def test_a_file_is_replaced_only_when_asked_for(self, store: str, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text("mine")
        assert "exists; give another name, or --overwrite" in refusal(store, "SELECT 1", "--out", tmp_path / "x.csv")
        ask(store, "SELECT 1 AS a", "--out", tmp_path / "x.csv", "--overwrite")
        assert (tmp_path / "x.csv").read_text() == "a\n1\n"

    def test_only_queries_that_read_are_written(self, store: str, tmp_path: Path) -> None:
        for query in ("DROP TABLE runs", "COPY runs TO 'x.csv'", "SELECT 1; SELECT 2", "FROM read_text('/etc/passwd')"):
            for name in ("x.parquet", "x.csv"):
                assert refusal(store, query, "--out", tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (("--out", "x.txt"), "--out is x.txt; expected a name in .parquet, .csv or .json, or --format"),
            (("--out", "x.csv", "--format", "json"), "--out is x.csv, --format is json; expected the same format"),
            (("--out", "x.csv", "--format", "table"), "--format table is for reading"),
            (("--overwrite",), "--overwrite goes with --out FILE"),
        ],
    )
    def test_options_that_contradict_are_wrong_usage(self, store: str, options: tuple[str, ...], sentence: str) -> None:
        assert sentence in refusal(store, "SELECT 1", *options)


class TestStandardInput:
    """Where no query is given."""

    def test_the_query_is_read_from_there(self, store: str) -> None:
        typed = "-- How many?\nSELECT count(*) AS n\nFROM images;\n"
        assert ask(store, typed=typed).stdout.splitlines() == ["n", "-", "2"]

    def test_several_queries_print_one_table_each(self, store: str) -> None:
        several = "SELECT 1 AS a; -- and\nSELECT 2 AS b;"
        assert ask(store, typed=several).stdout.splitlines() == ["a", "-", "1", "", "b", "-", "2"]
        assert "got 2 SQL statements; expected one query" in refusal(store, several, "--format", "csv")

    def test_the_name_of_a_file_of_sql_is_read_as_such(self, store: str, tmp_path: Path) -> None:
        (tmp_path / "query.sql").write_text("SELECT 3 AS c")
        assert ask(store, tmp_path / "query.sql").stdout.splitlines() == ["c", "-", "3"]
        assert "nowhere.sql cannot be read as a file: No such file" in refusal(store, "nowhere.sql")

    def test_a_mark_of_the_byte_order_is_no_part_of_it(self, store: str) -> None:
        assert ask(store, typed=b"\xef\xbb\xbfSELECT 1 AS a").exit_code == 0

    def test_without_one_nothing_is_asked(self, store: str) -> None:
        assert refusal(store, typed="") == "got 0 SQL statements; expected one query"

    def test_text_that_is_not_utf8_is_refused(self, store: str) -> None:
        assert "the query is no UTF-8 text" in refusal(store, typed=b"SELECT '\xff'")
        assert "the query is no UTF-8 text" in refusal(store, "SELECT '\udcff'")


def test_a_store_of_many_files_says_what_makes_queries_faster(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(store, "SELECT 1").stderr == ""
    monkeypatch.setattr("jobs.verbs.sql._MANY_FILES", 0)
    assert ask(store, "SELECT 1").stderr.startswith("the labels lie in 1 files; `tagstream compact ")


def test_parquet_is_not_printed_on_a_terminal(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(click.UsageError, match="--format parquet is not for a terminal; give --out FILE"):
        sql.main([store, "SELECT 1", "--format", "parquet"], standalone_mode=False)
