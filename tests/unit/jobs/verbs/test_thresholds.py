"""`tagstream thresholds` as it is read, and as other programs read it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.thresholds import thresholds
from pipeline.naming.thresholds import read_thresholds
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record

HOSTILE = 'a "quoted",\nname'
N_IMAGES = 60


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store whose dogs are right from 0.5 on, and where another name never is, whatever its score."""
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1"))
    images = [
        {
            "truth": ["dog"] if i >= N_IMAGES // 2 else ["cat"],
            "caption": "A dog.",
            "labels": [("dog", i / N_IMAGES), (HOSTILE, i / N_IMAGES)],
        }
        for i in range(N_IMAGES)
    ]
    commit_judged(store, "run-1", {"a": images})
    return store.url


def run(store: str, out: Path, *arguments: str) -> Result:
    fixed = [store, "--target-precision", "0.9", "--out", str(out)]
    return CliRunner().invoke(thresholds, [*fixed, *arguments], catch_exceptions=False)


def test_the_file_holds_what_the_table_says(store: str, tmp_path: Path) -> None:
    result = run(store, tmp_path / "t.toml")
    written = read_thresholds(tmp_path / "t.toml")
    assert written.run == "run-1"
    assert 0.4 < written.thresholds["dog"] < 0.6
    lines = result.stdout.splitlines()
    assert lines[0].startswith("run run-1: 60 images with a truth (labels), vocabulary default-")
    assert lines[0].endswith("target precision 0.9")
    assert any(line.split()[:2] == ["dog", f"{written.thresholds['dog']:.5g}"] for line in lines)
    assert result.stderr == f"Written: {tmp_path / 't.toml'}\n"


def test_the_table_says_on_which_images_it_was_judged(store: str, tmp_path: Path) -> None:
    text = run(store, tmp_path / "t.toml").stdout
    assert "On images that they were not learned from" in text
    assert "which flatters it" in text


def test_json_holds_all_of_it_and_a_name_that_is_never_right_has_no_number(store: str, tmp_path: Path) -> None:
    content = json.loads(run(store, tmp_path / "t.toml", "--format", "json").stdout)
    names = {row["name"]: row for row in content["names"]}
    assert list(content["judged"]) == ["none", "common", "own"]
    assert content["judged"]["none"]["listed"] == 2 * N_IMAGES
    (never,) = (row for name, row in names.items() if name != "dog")
    assert (never["threshold"], never["from"], never["listed"], never["kept"]) == (None, "never", 0, None)


def test_csv_has_one_row_a_name_however_it_is_spelled(store: str, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(store, tmp_path / "t.toml", "--format", "csv").stdout)))
    assert {row["name"] for row in rows} == {"dog", 'a "quoted", name'}
    assert list(rows[0]) == [
        *["name", "threshold", "from", "truths", "listed", "hits", "precision", "low", "high", "recall", "kept"]
    ]


def test_captions_can_be_the_truth(store: str, tmp_path: Path) -> None:
    run(store, tmp_path / "t.toml", "--truth", "captions")
    written = read_thresholds(tmp_path / "t.toml")
    assert written.truth == "captions"
    assert written.thresholds["dog"] < 0.1


@pytest.mark.parametrize("target", ["0", "1.5", "-1", "x", "nan"])
def test_a_target_that_is_no_share_is_wrong_usage(store: str, tmp_path: Path, target: str) -> None:
    result = CliRunner().invoke(thresholds, [store, "--target-precision", target, "--out", str(tmp_path / "t.toml")])
    assert result.exit_code == 2
    assert not (tmp_path / "t.toml").exists()


def test_a_file_that_is_replaced_is_told_unless_that_was_meant(store: str, tmp_path: Path) -> None:
    run(store, tmp_path / "t.toml")
    assert "t.toml is replaced; --overwrite says that this is meant" in run(store, tmp_path / "t.toml").stderr
    assert "is replaced" not in run(store, tmp_path / "t.toml", "--overwrite").stderr
