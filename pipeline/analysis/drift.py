"""Drift without a truth: whether labels, scores, rejects and images of some shards differ from those of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.drift_tests import ALARM_P, DriftTest, Flags, Floats, Groups, MovedName, ShardCounts, find_drift
from pipeline.analysis.shard_times import shard_times
from pipeline.catalog.connection import Connection, add_table, query_rows, run_record
from pipeline.catalog.label_choice import shown_ranking
from pipeline.store.store import Store

N_TESTS = 6
# Rarer names are taken together: each would be a test by itself that has little to go by.
_N_NAMES = 200
_OTHERS = "(all other names)"


@dataclass(frozen=True, slots=True)
class Side:
    """Shards that are held against others."""

    n_shards: int
    n_images: int


@dataclass(frozen=True, slots=True)
class Drift:
    """What the tests say of two groups of shards."""

    before: Side
    since: Side
    tests: list[DriftTest]
    """Empty where one of the groups has no shard."""
    names: list[MovedName]
    """The most frequent names, those first that moved most."""
    least_p: float
    """The lowest p that so many shards can give."""

    @property
    def is_telling(self) -> bool:
        """Whether there are shards enough for an alarm."""
        return bool(self.tests) and self.least_p * N_TESTS < ALARM_P

    def holds(self, least_move: float) -> bool:
        """Whether anything moved more than sampling explains, and farther than this (`DriftTest.moved`)."""
        return any(test.is_drift and test.moved > least_move for test in self.tests)


@dataclass(frozen=True, slots=True)
class _Shard:
    run: str
    shard: str
    is_second: bool


def drift_between(connection: Connection, run_a: str, run_b: str) -> Drift:
    """Holds the shards of the second run against those of the first; same shards of one source are pairs."""
    rows = query_rows(connection, "run_shards", {"runs": [run_a, run_b]})
    shards = [_Shard(row["run"], row["shard"], row["run"] == run_b) for row in rows]
    first, second = (run_record(connection, run) for run in (run_a, run_b))
    drift = _find(connection, shards, is_paired=first["source_root"] == second["source_root"])
    return _comparable(connection, [run_a, run_b], drift)


def drift_since(connection: Connection, store: Store, runs: Sequence[str], since: datetime) -> Drift:
    """Holds the shards that were committed since a time against those of before.

    Args:
        runs: names of the runs whose shards are looked at, all together.
        since: a time with its zone.
    """
    times = shard_times(connection, store, runs)
    shards = [_Shard(time.run, time.shard, time.committed >= since) for time in times]
    return _comparable(connection, runs, _find(connection, shards, is_paired=False))


def _comparable(connection: Connection, runs: Sequence[str], drift: Drift) -> Drift:
    """The drift, without that of scores where these are of several rankings: they say nothing of one another."""
    records = [run_record(connection, run) for run in runs]
    rankings = {shown_ranking(connection, record["run"], record["labelling"]).name for record in records}
    return drift if len(rankings) == 1 else replace(drift, tests=[t for t in drift.tests if t.what != "scores"])


def _find(connection: Connection, shards: Sequence[_Shard], *, is_paired: bool) -> Drift:
    columns = {
        "run": pa.array([shard.run for shard in shards], pa.string()),
        "shard": pa.array([shard.shard for shard in shards], pa.string()),
        "place": pa.array(range(len(shards)), pa.int64()),
    }
    add_table(connection, "drift_shards", pa.table(columns))
    images = query_rows(connection, "drift_images", {})
    is_second_S = np.array([shard.is_second for shard in shards], bool)
    before, since = (_side(images, is_second_S, of_second) for of_second in (False, True))
    if not (before.n_shards and since.n_shards):
        return Drift(before, since, tests=[], names=[], least_p=1.0)
    pairs_P2 = _pairs(shards) if is_paired else np.zeros((0, 2), np.int64)
    groups = Groups(is_second_S, pairs_P2)
    tests, names = find_drift(_count(connection, images, len(shards)), groups)
    return Drift(before, since, tests, names, groups.least_p)


def _side(images: Sequence[Mapping[str, Any]], is_second_S: Flags, of_second: bool) -> Side:
    rows = [row for row in images if is_second_S[row["place"]] == of_second]
    return Side(len(rows), sum(row["n_images"] for row in rows))


def _pairs(shards: Sequence[_Shard]) -> NDArray[np.int64]:
    """Places of shards of both runs that have the same name, int64 [P, 2]."""
    places = [
        {shard.shard: place for place, shard in enumerate(shards) if shard.is_second == of_second}
        for of_second in (False, True)
    ]
    pairs = [(place, places[1][name]) for name, place in places[0].items() if name in places[1]]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _count(connection: Connection, images: Sequence[Mapping[str, Any]], n_shards: int) -> ShardCounts:
    sizes = query_rows(connection, "drift_sizes", {})
    scores = query_rows(connection, "drift_scores", {})
    labels = query_rows(connection, "drift_names", {"n": _N_NAMES})
    _, sizes_SB = _pivot(sizes, "bin", n_shards)
    _, scores_SB = _pivot(scores, "bin", n_shards)
    names, labels_SJ = _pivot([{**row, "name": row["name"] or _OTHERS} for row in labels], "name", n_shards)
    score_sum_S = np.zeros(n_shards)
    for row in scores:
        score_sum_S[row["place"]] += row["score_sum"]

    def column(name: str) -> Floats:
        values_S = np.zeros(n_shards)
        values_S[[row["place"] for row in images]] = [row[name] for row in images]
        return values_S

    return ShardCounts(
        names=tuple(names),
        labels_SJ=labels_SJ,
        n_labelled_S=column("n_labelled"),
        scores_SB=scores_SB,
        score_sum_S=score_sum_S,
        sizes_SB=sizes_SB,
        pixel_sum_S=column("pixel_sum"),
        n_images_S=column("n_images"),
        n_rejected_S=column("n_rejected"),
        n_unfinished_S=column("n_unfinished"),
        n_branches_S=column("n_branches"),
    )


def _pivot(rows: Sequence[Mapping[str, Any]], by: str, n_shards: int) -> tuple[list[Any], Floats]:
    """The different values of a column, ascending, and how many each shard has of each, [S, values]."""
    values = sorted({row[by] for row in rows})
    places = {value: place for place, value in enumerate(values)}
    table = np.zeros((n_shards, len(values)))
    for row in rows:
        table[row["place"], places[row[by]]] += row["n"]
    return values, table
