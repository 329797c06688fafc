"""Which run a verb takes, and what it says of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.cli import tagstream
from pipeline.errors import StoreError
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, job_record, run_record

NOTE = "run second-2b, the latest of 2; --run chooses"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store of two runs, of which the second was labelled last."""
    store = Store(str(tmp_path / "store"))
    for day, (run, label) in enumerate((("first-1a", "cat"), ("second-2b", "dog")), 1):
        store.create_run(run_record(run))
        commit_judged(store, run, {"s": [{"truth": ["dog"], "labels": [(label, 0.5)]}]})
        store.run(run).write_job(job_record(run, started=f"2026-01-0{day}T00:00:00.000+00:00"))
    return store.url


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(tagstream, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def of_verb(verb: str, store: str, tmp_path: Path) -> list[str]:
    """A command that reads one run."""
    options = {
        "recall": ["--format", "csv"],
        "thresholds": ["--target-precision", "0.5", "--out", str(tmp_path / "thresholds.toml"), "--format", "json"],
        "export": ["--to", "csv", "--out", str(tmp_path / "out")],
        "report": ["--out", str(tmp_path / "report.html")],
    }
    return [verb, store, *options[verb]]


@pytest.mark.parametrize("verb", ["recall", "thresholds", "export", "report"])
def test_without_a_choice_the_latest_run_is_read_and_told_of(store: str, tmp_path: Path, verb: str) -> None:
    result = run(*of_verb(verb, store, tmp_path))
    assert result.stderr.splitlines()[0] == NOTE
    assert NOTE not in result.stdout
    assert "second-2b" in result.stdout


@pytest.mark.parametrize("verb", ["recall", "thresholds", "export", "report"])
def test_the_beginning_of_a_name_chooses(store: str, tmp_path: Path, verb: str) -> None:
    result = run(*of_verb(verb, store, tmp_path), "--run", "fir")
    assert "the latest" not in result.stderr
    assert "first-1a" in result.stdout


@pytest.mark.parametrize("verb", ["recall", "thresholds", "export", "report"])
def test_a_wrong_name_is_answered_with_those_that_exist(store: str, tmp_path: Path, verb: str) -> None:
    with pytest.raises(StoreError, match=r"there is no run nope .*; it holds first-1a, second-2b"):
        run(*of_verb(verb, store, tmp_path), "--run", "nope")


@pytest.mark.parametrize("options", [["compact"], ["status"], ["status", "--verify"], ["status", "--repair"]])
def test_verbs_of_all_runs_narrow_to_one(store: str, options: list[str]) -> None:
    verb, *flags = options
    assert "first-1a" in run(verb, store, *flags).stdout
    for given in ("latest", "second"):
        found = run(verb, store, *flags, "--run", given).stdout
        assert "second-2b" in found
        assert "first-1a" not in found
    with pytest.raises(StoreError, match=r"there is no run nope .*; it holds first-1a, second-2b"):
        run(verb, store, *flags, "--run", "nope")


def test_rows_for_other_programs_are_those_of_the_named_run(store: str) -> None:
    by_default, named = (run("recall", store, "--format", "csv", *more) for more in ([], ["--run", "second-2b"]))
    assert by_default.stdout == named.stdout
    assert {row["run"] for row in csv.DictReader(io.StringIO(named.stdout))} == {"second-2b"}
    assert named.stderr == ""


def test_compare_takes_beginnings_and_the_latest(store: str, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    found = json.loads(run("compare", store, "fir", "latest", "--format", "json", "--summary", str(summary)).stdout)
    assert (found["a"]["run"], found["b"]["run"]) == ("first-1a", "second-2b")
    summed = json.loads(summary.read_text())
    assert (summed["run_a"], summed["run_b"]) == ("first-1a", "second-2b")


def test_a_report_compares_with_the_beginning_of_a_name(store: str, tmp_path: Path) -> None:
    run("report", store, "--compare", "fir", "--out", str(tmp_path / "report.html"))
    assert '"run": "first-1a"' in (tmp_path / "report.html").read_text().replace('":"', '": "')


class TestSql:
    """SQL over all runs, or over one."""

    @pytest.mark.parametrize("given", ["second-2b", "sec", "latest"])
    @pytest.mark.parametrize(
        "query",
        [
            "SELECT DISTINCT run FROM images", "SELECT DISTINCT run FROM labels", "SELECT DISTINCT run FROM truth",
            "SELECT run FROM runs", "SELECT run FROM jobs", "SELECT run FROM recall_at(1)",
            "SELECT run FROM images_with('dog')", "SELECT run FROM labels_of('0')",
        ],
    )  # fmt: skip
    def test_with_a_run_every_view_and_macro_knows_it_alone(self, store: str, given: str, query: str) -> None:
        rows = json.loads(run("sql", store, query, "--run", given, "--format", "json").stdout)
        assert [row["run"] for row in rows] == ["second-2b"]

    def test_spellings_are_those_of_the_run(self, store: str) -> None:
        found = run("sql", store, "SELECT label FROM spellings", "--run", "first", "--format", "csv").stdout
        assert found.splitlines() == ["label", "cat"]

    def test_a_query_over_several_runs_is_told_of(self, store: str) -> None:
        result = run("sql", store, "SELECT count(*) AS n FROM images", "--format", "csv")
        assert result.stderr.splitlines() == ["the views hold 2 runs; --run narrows them to one"]
        assert result.stdout.splitlines() == ["n", "2"]

    def test_a_query_over_one_run_says_nothing(self, store: str) -> None:
        result = run("sql", store, "SELECT count(*) AS n FROM images", "--format", "csv", "--run", "second-2b")
        assert (result.stderr, result.stdout.splitlines()) == ("", ["n", "1"])

    def test_a_wrong_name_is_answered_with_those_that_exist(self, store: str) -> None:
        with pytest.raises(StoreError, match=r"there is no run nope .*; it holds first-1a, second-2b"):
            run("sql", store, "SELECT 1", "--run", "nope")
