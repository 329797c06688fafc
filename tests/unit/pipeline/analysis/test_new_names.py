"""Names that no vocabulary mentions."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.analysis.new_names import NewName, find_new_names
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record

WORDS = replace(read_vocabulary(None), aliases={"puppy": "dog"}, deny=frozenset({"photo"}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three shards, committed on three days."""
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1"))
    shards = {
        "a.tar": [[("puppies", 0.9), ("owl", 0.5)], [("photo", 0.8), ("owls", 0.3), ("owl", 0.1)]],
        "b.tar": [[("fox", 0.7), ("owl", 0.6)], [("owl", 0.9)], [("tree", 0.25), ("owl", 0.2)]],
        "c.tar": [[("fox", 0.5)]],
    }
    for day, (shard, images) in enumerate(shards.items(), start=1):
        commit_judged(store, "run-1", {shard: [{"truth": None, "labels": labels} for labels in images]})
        at = datetime(2026, 3, day, tzinfo=UTC).timestamp()
        os.utime(store.run("run-1").layout.images(f"{shard}.parquet"), (at, at))
    return store


def find(store: Store, *vocabularies: Vocabulary) -> list[NewName]:
    return find_new_names(open_store(store.url, vocabularies[0].without_limit()), store, vocabularies)


def test_they_come_with_when_how_often_scores_and_images(store: Store) -> None:
    owl, fox, tree = find(store, WORDS)
    assert (owl.name, owl.images, owl.since) == ("owl", 5, datetime(2026, 3, 1, tzinfo=UTC))
    # Of 0.1, 0.2, 0.3, 0.5, 0.6, 0.9: an image counts once, all of its labels have scores.
    scores = (owl.score_min, owl.score_25, owl.score_50, owl.score_75, owl.score_max)
    assert scores == pytest.approx((0.1, 0.225, 0.4, 0.575, 0.9))
    # The only image on which it is the first label, then two on which it is the second.
    assert owl.examples[0] == "/data/shards/b.tar#1"
    assert len(set(owl.examples)) == 3
    assert (fox.name, fox.images, fox.since) == ("fox", 2, datetime(2026, 3, 2, tzinfo=UTC))
    assert sorted(fox.examples) == ["/data/shards/b.tar#0", "/data/shards/c.tar#0"]
    assert (tree.name, tree.images) == ("tree", 1)


def test_a_name_that_any_vocabulary_mentions_is_not_new(store: Store) -> None:
    other = replace(WORDS, aliases={}, deny=frozenset(), wider={"fox": "animal"})
    assert [name.name for name in find(store, WORDS, other)] == ["owl", "tree"]


def test_names_that_are_not_allowed_are_listed(store: Store) -> None:
    assert [name.name for name in find(store, replace(WORDS, allow=frozenset({"owl"})))] == ["fox", "tree"]


def test_a_store_all_of_whose_names_are_known_has_none(store: Store) -> None:
    assert find(store, replace(WORDS, sensitive=frozenset({"owl", "fox", "tree"}))) == []
