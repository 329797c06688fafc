"""Charts: their numbers are those that the commands beside them print."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.cli import tagstream
from model.choices import RANKINGS
from pipeline.analysis.comparison import compare_runs
from pipeline.analysis.recall import analyse_run
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.report.charts import Chart, Commands, comparison_charts, run_charts, truth_charts
from pipeline.store.store import Store
from tests.fixtures.stored.reported import OTHER, REJECTED, RUN, make_store, random_shards

TOP_K = 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    shards = random_shards(3, 20, seed=1)
    shards["s001"] += [REJECTED] * 3
    return make_store(tmp_path_factory.mktemp("charts"), shards, other=random_shards(3, 20, seed=2))


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary by which other names are counted, and one is not shown; its name has to be quoted."""
    path = tmp_path_factory.mktemp("vocabulary") / "the dog's.toml"
    path.write_text('deny = ["photo"]\nsensitive = ["trees"]\naliases = {cat = "dog", bird = "sky"}\n')
    return path


@pytest.fixture(scope="module", params=["vocabulary of its own", "built in"])
def charts(store: Store, vocabulary: Path, request: pytest.FixtureRequest) -> dict[str, Chart]:
    path = None if request.param == "built in" else vocabulary
    words = read_vocabulary(path)
    connection = open_store(store.url, words)
    commands = Commands(store.url, None if path is None else str(path))
    made = run_charts(connection, commands, RUN, RANKINGS["prob"], words.sensitive)
    made += truth_charts(analyse_run(connection, RUN, "labels"), commands, TOP_K, words.sensitive)
    comparison = compare_runs(connection, OTHER, RUN, TOP_K, "labels")
    made += comparison_charts(comparison, commands, "labels", words.sensitive)
    return {chart.id: chart for chart in made}


def run_command(command: str) -> str:
    """What a command of a chart prints."""
    result = CliRunner().invoke(tagstream, shlex.split(command)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def printed(chart: Chart) -> Any:
    """What the chart's command prints, as JSON."""
    command = chart.command.removesuffix(" --format csv").removesuffix(" --format json")
    return json.loads(run_command(f"{command} --format json"))


@pytest.mark.parametrize("name", ["labels", "scores", "labels_each", "jobs", "rejects"])
def test_the_sql_beside_a_chart_gives_its_numbers(charts: dict[str, Chart], name: str) -> None:
    chart = charts[name]
    assert shlex.split(chart.command)[-1] == chart.sql
    assert chart.rows
    assert printed(chart) == [dict(zip(chart.columns, row, strict=True)) for row in chart.rows]


def test_the_recall_curve_is_that_of_the_command(charts: dict[str, Chart]) -> None:
    chart = charts["recall"]
    printed_rows = {(row["k"], row["measure"]): row for row in printed(chart) if row["k"]}
    assert {row[0] for row in chart.rows} == {1, 2, 3, 5}
    for k, measure, value, low, high in chart.rows:
        row = printed_rows[k, measure]
        assert [value, low, high] == [row["value"], row["low"], row["high"]]


def test_the_names_are_those_of_the_command_that_are_not_sensitive(charts: dict[str, Chart]) -> None:
    printed_rows = [row for row in printed(charts["names"]) if row["truths"] and not row["sensitive"]]
    columns = charts["names"].columns
    assert charts["names"].rows == [[row[column] for column in columns] for row in printed_rows]


def test_the_calibration_is_that_of_the_command(charts: dict[str, Chart]) -> None:
    columns = charts["calibration"].columns
    assert charts["calibration"].rows == [[row[column] for column in columns] for row in printed(charts["calibration"])]


def test_gained_and_lost_names_are_those_of_the_command_that_are_not_sensitive(charts: dict[str, Chart]) -> None:
    chart = charts["changed_names"]
    is_hidden = "tree" not in {row[0] for row in charts["labels"].rows}
    names = json.loads(run_command(chart.command))["names"]
    changed = [row for row in names if (row["n_gained"] or row["n_lost"]) and not (is_hidden and row["name"] == "tree")]
    assert chart.rows == [[row["name"], row["n_gained"], row["n_lost"], row["n_both"]] for row in changed]


def test_the_command_gives_all_of_many_gained_and_lost_names(tmp_path: Path) -> None:
    words = [f"word {chr(97 + first)}{chr(97 + second)}" for first in range(4) for second in range(10)]
    mine = {"a": [{"labels": words[start : start + 5]} for start in range(0, 40, 5)]}
    store = make_store(tmp_path, mine, other={"a": [{"labels": ["dog"]} for _ in range(8)]})
    comparison = compare_runs(open_store(store.url), OTHER, RUN, 5, "labels")
    (chart,) = comparison_charts(comparison, Commands(store.url), "labels")
    names = json.loads(run_command(chart.command))["names"]
    assert [row[0] for row in chart.rows] == [row["name"] for row in names]
    assert len(chart.rows) == 41


def test_of_sql_it_is_said_whether_it_can_be_asked_as_it_stands(charts: dict[str, Chart], store: Store) -> None:
    asked = {chart.id for chart in charts.values() if chart.is_query}
    assert asked == {"labels", "scores", "labels_each", "jobs", "rejects"}
    for chart in charts.values():
        assert ("$run" in chart.sql or "hits(" in chart.sql) != chart.is_query


def test_differences_are_those_of_the_command(charts: dict[str, Chart]) -> None:
    differences = printed(charts["differences"])["differences"]
    for measure, *values in charts["differences"].rows:
        assert values == list(differences[measure].values())


def test_the_chart_of_scores_holds_every_score(charts: dict[str, Chart], store: Store) -> None:
    query = f"SELECT count(*), count(DISTINCT image_id) FROM labels WHERE run = '{RUN}'"
    ((n_labels, n_images),) = open_store(store.url).sql(query).fetchall()
    assert sum(row[2] for row in charts["scores"].rows) == n_labels
    assert sum(row[1] for row in charts["scores"].rows) == n_images


def test_perplexities_have_bins_of_their_own_and_no_calibration(tmp_path: Path) -> None:
    image = {"labels": [("dog", 1.5), ("cat", 12.25), ("sky", 700.0), ("tree", float("inf"))], "truth": ["cat"]}
    store = make_store(tmp_path, {"a": [image]}, rankings=("ppl", "ppl"))
    connection = open_store(store.url)
    (scores,) = (
        chart for chart in run_charts(connection, Commands(store.url), RUN, RANKINGS["ppl"]) if chart.id == "scores"
    )
    assert scores.rows == [[1.0, 1, 1], [12.0, 0, 1], [40.0, 0, 1]]
    assert {chart.id for chart in truth_charts(analyse_run(connection, RUN, "labels"), Commands(store.url), 5)} == {
        "recall",
        "names",
    }


def test_texts_of_any_length_are_cut(tmp_path: Path) -> None:
    long = {"stage": "decode", "error": "E" * 10_000, "message": "m" * 10_000}
    images = [{"labels": ["x" * 10_000], "truth": ["y" * 10_000]}, {**REJECTED, "columns": long}]
    store = make_store(tmp_path, {"a": images}, other={"a": [{"labels": ["z" * 10_000]}, REJECTED]})
    connection = open_store(store.url)
    charts = run_charts(connection, Commands(store.url), RUN, RANKINGS["prob"])
    charts += truth_charts(analyse_run(connection, RUN, "labels"), Commands(store.url), TOP_K)
    comparison = compare_runs(connection, OTHER, RUN, TOP_K, "labels")
    charts += comparison_charts(comparison, Commands(store.url), "labels")
    texts = {chart.id: [value for row in chart.rows for value in row if isinstance(value, str)] for chart in charts}
    assert {name: max(map(len, texts[name])) for name in ("labels", "rejects", "names", "changed_names")} == {
        "labels": 200,
        "rejects": 200,
        "names": 200,
        "changed_names": 200,
    }


def test_a_run_without_images_has_charts_without_numbers(tmp_path: Path) -> None:
    store = make_store(tmp_path, {})
    charts = run_charts(open_store(store.url), Commands(store.url), RUN, RANKINGS["prob"])
    assert [chart.id for chart in charts if chart.rows] == ["jobs"]
