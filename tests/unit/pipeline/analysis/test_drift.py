"""Drift of what a store holds: which shards are held against which, and what is counted of them."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.analysis.drift import Drift, drift_between, drift_since
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record

CHANGED = datetime(2026, 3, 1, tzinfo=UTC)
N_BEFORE, N_SINCE = 9, 6
WORDS = ["cat", "dogs", "dog", "owl", "tree", "fox"]


def image(rng: random.Random, *, is_moved: bool) -> dict[str, Any]:
    words = rng.sample(WORDS[2:] if is_moved else WORDS[:4], 2)
    size = {"width": rng.randrange(90, 110), "height": 100, "n_unfinished": rng.randrange(3)}
    is_rejected = rng.random() < 0.1
    labels = [(word, rng.uniform(0.2, 0.8)) for word in words]
    labels.sort(key=lambda label: -label[1])
    return {
        "truth": None,
        "labels": [] if is_rejected else labels,
        "columns": size,
        **({"status": "rejected"} if is_rejected else {}),
    }


def fill(store: Store, run: str, *, moves: bool, seed: int = 0, **record: Any) -> None:
    """A run of shards of 20 images, of which the last ones were committed later, perhaps with other names."""
    rng = random.Random(seed)
    store.create_run(run_record(run, **record))
    for number in range(N_BEFORE + N_SINCE):
        is_late = number >= N_BEFORE
        shard = f"{number:05d}"
        commit_judged(store, run, {shard: [image(rng, is_moved=moves and is_late) for _ in range(20)]})
        at = (CHANGED + timedelta(hours=1 if is_late else -1)).timestamp()
        os.utime(store.run(run).layout.images(f"{shard}.parquet"), (at, at))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def found(drift: Drift) -> set[str]:
    return {test.what for test in drift.tests if test.is_drift}


@pytest.mark.parametrize(("moves", "expected"), [(False, set()), (True, {"names", "one_name"})])
def test_shards_since_a_time_are_held_against_those_of_before(store: Store, moves: bool, expected: set[str]) -> None:
    fill(store, "run-1", moves=moves)
    drift = drift_since(open_store(store.url), store, ["run-1"], CHANGED)
    assert (drift.before.n_shards, drift.before.n_images) == (N_BEFORE, 20 * N_BEFORE)
    assert (drift.since.n_shards, drift.since.n_images) == (N_SINCE, 20 * N_SINCE)
    assert found(drift) == expected
    assert drift.is_telling
    assert drift.holds(0.2) is moves
    assert not drift.holds(0.99)


def test_what_is_shown_are_the_means_and_shares_of_the_rows(store: Store) -> None:
    fill(store, "run-1", moves=True)
    connection = open_store(store.url)
    drift = drift_since(connection, store, ["run-1"], CHANGED)
    tests = {test.what: test for test in drift.tests}
    for side, is_late in (("before", False), ("since", True)):
        of_side = f"(shard >= '{N_BEFORE:05d}') = {is_late}"
        ((rejected, unfinished, pixels),) = connection.execute(
            f"SELECT avg((status = 'rejected')::INT), sum(n_unfinished) / (sum(n_unfinished) + sum(n_labels)), "
            f"avg(width * height) FROM images WHERE {of_side}"
        ).fetchall()
        ((score, owls),) = connection.execute(
            f"SELECT avg(score), sum((name = 'owl')::INT) / (SELECT count(*) FROM images WHERE status = 'labelled' AND "
            f"{of_side}) FROM labels WHERE {of_side}"
        ).fetchall()
        expected = {"rejected": rejected, "unfinished": unfinished, "sizes": pixels, "scores": score}
        for what, value in expected.items():
            assert getattr(tests[what], side) == pytest.approx(value), what
        (owl,) = (name for name in drift.names if name.name == "owl")
        assert getattr(owl, side) == pytest.approx(owls)
    # Under their names: dog and dogs are one.
    assert {name.name for name in drift.names} == {"cat", "dog", "owl", "tree", "fox"}


def test_rare_names_are_taken_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, "run-1", moves=True)
    monkeypatch.setattr("pipeline.analysis.drift._N_NAMES", 2)
    drift = drift_since(open_store(store.url), store, ["run-1"], CHANGED)
    assert len(drift.names) == 3
    assert "(all other names)" in {name.name for name in drift.names}


def test_without_shards_on_one_side_nothing_is_told(store: Store) -> None:
    fill(store, "run-1", moves=True)
    drift = drift_since(open_store(store.url), store, ["run-1"], CHANGED + timedelta(days=1))
    assert (drift.tests, drift.since.n_shards, drift.is_telling, drift.holds(0)) == ([], 0, False, False)


@pytest.mark.parametrize(("root", "least_p"), [("/data/shards", 2 / 2**15), ("/data/others", None)])
def test_runs_of_one_source_are_compared_shard_by_shard(store: Store, root: str, least_p: float | None) -> None:
    fill(store, "run-1", moves=False)
    fill(store, "run-2", moves=False, seed=1, source_root=root)
    drift = drift_between(open_store(store.url), "run-1", "run-2")
    assert found(drift) == set()
    assert drift.before == drift.since
    if least_p is not None:
        assert drift.least_p == least_p
    else:
        assert drift.least_p < 1e-7


def test_a_run_is_not_held_against_itself(store: Store) -> None:
    store.create_run(run_record("run-1"))
    with pytest.raises(TagstreamError, match="against itself, which never drifts; name two runs"):
        drift_between(open_store(store.url), "run-1", "run-1")


def test_scores_of_two_rankings_are_not_compared(store: Store) -> None:
    fill(store, "run-1", moves=False)
    fill(store, "run-2", moves=False, labelling={"top_k": 5, "ranking": "ppl"})
    drift = drift_between(open_store(store.url), "run-1", "run-2")
    assert "scores" not in {test.what for test in drift.tests}
    assert len(drift.tests) == 5
