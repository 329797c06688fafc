"""`tagstream vocabulary` as it is read."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.vocabulary import vocabulary
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record


@pytest.fixture
def store(tmp_path: Path) -> str:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1"))
    commit_judged(store, "run-1", {"s": [{"truth": None, "labels": [("dog", 0.5), ("owl", 0.25)]}]})
    return store.url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(vocabulary, list(arguments))


def test_names_are_listed_with_images_to_look_at(store: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('allow = ["dog"]')
    result = run(store, "--new", "--vocabulary", str(tmp_path / "mine.toml"), "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["name"], row["images"], row["score_50"], row["examples"]) == (
        "owl",
        "1",
        "0.25",
        '["/data/shards/s#0"]',
    )


def test_a_table_says_of_which_vocabularies(store: str, tmp_path: Path) -> None:
    for name, text in (("mine", 'deny = ["dog"]'), ("others", 'sensitive = ["owl"]')):
        (tmp_path / f"{name}.toml").write_text(text)
    chosen = [word for name in ("mine", "others") for word in ("--vocabulary", str(tmp_path / f"{name}.toml"))]
    last = run(store, "--new", *chosen).stdout.splitlines()[-1]
    assert last.startswith("0 names that are not in mine-")
    assert run(store, "--new").stdout.splitlines()[-1].startswith("2 names that are not in default-")


def test_what_is_asked_for_has_to_be_said(store: str) -> None:
    result = run(store)
    assert result.exit_code == 2
    assert "Missing option '--new'" in result.stderr
