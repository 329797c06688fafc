"""`tagstream recall` as it is read, and as other programs read it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.recall import recall
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record

IMAGES = {
    "a": [
        {"truth": ["dog", "cat"], "caption": "A dog.", "labels": ["dog", "tree"]},
        {"truth": ["tie"], "labels": ["tie"]},
    ],
    "b": [{"truth": ["dog"], "labels": ["wolf", "bird"]}],
}


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with three images in two shards."""
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1"))
    commit_judged(store, "run-1", IMAGES)
    return store.url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(recall, list(arguments), catch_exceptions=False)


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_says_what_was_measured_and_has_a_column_a_k(store: str) -> None:
    lines = run(store, "--k", "1,2").stdout.splitlines()
    assert lines[0].startswith("run run-1: 3 images with a truth (labels), vocabulary default-")
    assert lines[2].split("  ")[0] == "measure"
    assert lines[2].endswith("any k")
    assert [heading.strip() for heading in lines[2].split("  ") if heading.strip()] == [
        "measure",
        "k = 1",
        "k = 2",
        "any k",
    ]
    assert lines[4].startswith("recall_macro            0.500 (")


def test_other_programs_get_one_row_a_measure_and_k(store: str) -> None:
    rows = read_csv(run(store, "--k", "1,2", "--format", "csv").stdout)
    origin = ["run", "truth", "vocabulary", "match", "labels"]
    assert list(rows[0]) == [*origin, "shard", "images", "k", "measure", "value", "low", "high"]
    hits = {row["k"]: float(row["value"]) for row in rows if row["measure"] == "hit"}
    assert hits == {"1": pytest.approx(2 / 3), "2": pytest.approx(2 / 3)}


def test_json_holds_the_same(store: str) -> None:
    rows = json.loads(run(store, "--k", "1", "--format", "json").stdout)
    assert {row["measure"] for row in rows} >= {"recall_macro", "precision_micro", "mean_average_precision"}


def test_mean_average_precision_has_an_interval(store: str) -> None:
    rows = {row["measure"]: row for row in json.loads(run(store, "--k", "1", "--format", "json").stdout)}
    average = rows["mean_average_precision"]
    assert average["k"] is None
    # dog 1/2, cat 0, tie 1.
    assert average["value"] == pytest.approx(0.5)
    assert average["low"] < average["value"] < average["high"]


def test_the_summary_ends_with_what_the_labels_cover(store: str) -> None:
    lines = run(store, "--k", "1").stdout.splitlines()
    assert [line.split() for line in lines[-4:]] == [
        ["true_names_listed", "0.667"],
        ["truths_listed", "0.750"],
        ["labels_denied", "0.000"],
        ["names_listed", "5"],
    ]
    rows = {row["measure"]: row for row in json.loads(run(store, "--k", "1", "--format", "json").stdout)}
    assert (rows["truths_listed"]["value"], rows["names_listed"]["value"]) == (0.75, 5)


def test_wider_terms_of_a_vocabulary_can_be_hits(store: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[wider]\nwolf = "dog"\n')
    arguments = (store, "--k", "1", "--vocabulary", str(tmp_path / "mine.toml"), "--format", "json")
    exact, wider = (
        {row["measure"]: row["value"] for row in json.loads(run(*arguments, "--match", match).stdout)}
        for match in ("exact", "wider")
    )
    assert (exact["hit"], wider["hit"]) == (pytest.approx(2 / 3), 1.0)


def test_wider_terms_by_shard_are_those_of_the_shard(store: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[wider]\nwolf = "dog"\n')
    arguments = ("--k", "1", "--match", "wider", "--by", "shard", "--vocabulary", str(tmp_path / "mine.toml"))
    rows = read_csv(run(store, *arguments, "--format", "csv").stdout)
    assert {row["shard"]: float(row["value"]) for row in rows if row["measure"] == "hit"} == {"a": 1.0, "b": 1.0}


def test_by_shard_each_shard_has_its_measures(store: str) -> None:
    rows = read_csv(run(store, "--k", "2", "--by", "shard", "--format", "csv").stdout)
    recalls = {row["shard"]: float(row["value"]) for row in rows if row["measure"] == "recall_macro"}
    assert recalls == {"a": 0.75, "b": 0.0}


def test_by_label_each_name_has_its_support_and_what_was_listed_instead(store: str) -> None:
    rows = {row["name"]: row for row in read_csv(run(store, "--k", "2", "--by", "label", "--format", "csv").stdout)}
    assert (rows["dog"]["truths"], rows["dog"]["hits"], rows["dog"]["instead"]) == ("2", "1", "bird 1, wolf 1")
    assert (rows["wolf"]["truths"], rows["wolf"]["recall"], rows["wolf"]["precision"]) == ("0", "", "0.0")


def test_by_image_the_worst_come_first(store: str) -> None:
    rows = json.loads(run(store, "--by", "image", "--format", "json").stdout)
    assert [(row["shard"], row["key"]) for row in rows] == [("b", "0"), ("a", "0"), ("a", "1")]
    assert rows[0]["missed"] == ["dog"]


def test_by_score_the_table_ends_with_the_calibration_error(store: str) -> None:
    assert run(store, "--by", "score").stdout.splitlines()[-1].startswith("expected calibration error 0.")


def test_captions_can_be_the_truth(store: str) -> None:
    assert run(store, "--truth", "captions").stdout.startswith("run run-1: 1 images with a truth (captions)")


def test_another_vocabulary_is_named_in_the_result(store: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("label,name\nwolf,dog\n")
    result = run(store, "--k", "1", "--vocabulary", str(tmp_path / "mine.csv"), "--format", "json")
    rows = {row["measure"]: row for row in json.loads(result.stdout)}
    assert rows["hit"]["value"] == 1.0
    assert rows["hit"]["vocabulary"].startswith("mine-")


@pytest.mark.parametrize("ks", ["", "0", "1,x", "201", "1,,2", "-1"])
def test_a_k_that_is_none_is_wrong_usage(store: str, ks: str) -> None:
    result = run(store, "--k", ks)
    assert result.exit_code == 2
    assert f"--k is {ks}; expected numbers from 1 to 200, separated by commas" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--match", "paper", "--by", "shard"),
        ("--match", "semantic", "--by", "label"),
        ("--match", "wider", "--by", "image"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(store: str, arguments: tuple[str, ...]) -> None:
    result = run(store, *arguments)
    assert result.exit_code == 2
    assert f"--by {arguments[-1]} goes with --match exact" in result.stderr


def test_the_papers_measure_is_recall_precision_and_f1(store: str) -> None:
    rows = read_csv(run(store, "--match", "paper", "--k", "2", "--format", "csv").stdout)
    assert [row["measure"] for row in rows] == ["f1", "precision", "recall"]
    assert all(0 < float(row["low"]) < float(row["value"]) < float(row["high"]) for row in rows)
