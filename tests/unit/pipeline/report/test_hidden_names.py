"""Sensitive names in a report: nowhere, and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.cli import tagstream
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.report.job import Report, ReportRequest
from pipeline.store.store import Store
from tests.fixtures.stored.reported import OTHER, RUN, make_store
from tests.unit.pipeline.report.test_job import page_data

IMAGES = [
    {"labels": ["dog", "Zebras", "cat"], "truth": ["zebra", "dog", "walrus"]},
    {"labels": ["grevy", "photo", "Photos"], "truth": ["zebra"]},
    {"labels": ["cat"], "truth": ["cat"]},
]
# A name, one that labels have by an alias, one that is true alone, one that is not allowed, one that is denied.
WORDS = """
allow = ["dog", "cat", "zebra", "walrus", "panda"]
deny = ["photo"]
sensitive = ["zebra", "walrus", "photo", "lynx"]
[aliases]
grevy = "zebra"
"""
SECRETS = ("zebra", "grevy", "walrus", "photo", "lynx")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, {"a": IMAGES}, other={"a": [{"labels": ["lynx", "zebra", "panda"]}]})


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(WORDS)
    return path


def write(store: Store, vocabulary: Path | None, **options: Any) -> str:
    out = Path(store.url).with_name("page.html")
    words = read_vocabulary(vocabulary)
    Report(ReportRequest(store=store.url, out=str(out), run=RUN, compare=OTHER, vocabulary=words, **options)).write()
    return out.read_text()


def test_they_stand_nowhere_on_the_page(store: Store, vocabulary: Path) -> None:
    page = write(store, None).casefold()
    assert all(secret in page for secret in SECRETS)
    hiding = write(store, vocabulary, overwrite=True).casefold()
    assert [secret for secret in SECRETS if secret in hiding] == []
    assert "panda" in hiding


def test_the_page_and_the_command_say_how_many_they_are(store: Store, vocabulary: Path, tmp_path: Path) -> None:
    assert page_data(write(store, None))["head"]["leftOut"] is None
    out = tmp_path / "r.html"
    arguments = ["report", store.url, "--run", RUN, "--compare", OTHER, "--vocabulary", str(vocabulary)]
    result = CliRunner().invoke(tagstream, [*arguments, "--out", str(out)], catch_exceptions=False)
    said = f"4 names that the vocabulary {read_vocabulary(vocabulary).version} calls sensitive are left out"
    assert page_data(out.read_text())["head"]["leftOut"] == said
    assert said in result.stdout.splitlines()


def test_those_of_a_truth_are_counted_as_true_ones_that_are_not_shown(store: Store, vocabulary: Path) -> None:
    first, second, third = page_data(write(store, vocabulary))["images"]
    assert [first["truth"], first["moreTruth"], first["moreMissed"]] == [[{"name": "dog", "rank": 1}], 2, 1]
    assert ["truth" in second, second["moreTruth"]] == [False, 1]
    assert "moreMissed" not in second
    assert "moreTruth" not in third


def test_labels_behind_them_tell_how_many_stand_before(store: Store, vocabulary: Path) -> None:
    first, second, _ = page_data(write(store, vocabulary))["images"]
    assert [(label["label"], label.get("left_out")) for label in first["labels"]] == [("dog", None), ("cat", 1)]
    # What is denied or not allowed takes no place among the names.
    assert [(label["label"], label.get("left_out")) for label in first["other"]] == [("panda", 1)]
    assert "labels" not in second
