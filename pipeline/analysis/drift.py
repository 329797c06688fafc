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
from pipeline.catalog.connection import Connection, add_table, query_rows, read_sql, run_record
from pipeline.catalog.label_choice import shown_ranking
from pipeline.errors import TagstreamError
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
    """Holds the shards of the second run against those of the first; same shards of one source are pairs.

    Raises TagstreamError for a run and itself: whoever is to be warned would never be.
    """
    if run_a == run_b:
        raise TagstreamError(f"drift is asked of run {run_a} against itself, which never drifts; name two runs")
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
    sizes, scores = (_columns(connection, query) for query in ("drift_sizes", "drift_scores"))
    connection.execute(read_sql("drift_frequent"), {"n": _N_NAMES})
    labels = _columns(connection, "drift_names")
    frequent = connection.execute("SELECT name FROM drift_frequent ORDER BY number").fetchall()
    names = {-1: _OTHERS, **{number: name for number, (name,) in enumerate(frequent)}}
    numbers, labels_SJ = _pivot(labels, n_shards)

    def column(name: str) -> Floats:
        values_S = np.zeros(n_shards)
        values_S[[row["place"] for row in images]] = [row[name] for row in images]
        return values_S

    return ShardCounts(
        names=tuple(names[number] for number in numbers),
        labels_SJ=labels_SJ,
        n_labelled_S=column("n_labelled"),
        scores_SB=_pivot(scores, n_shards)[1],
        score_sum_S=np.bincount(scores["place"], scores["score_sum"], n_shards).astype(np.float64),
        sizes_SB=_pivot(sizes, n_shards)[1],
        pixel_sum_S=column("pixel_sum"),
        n_images_S=column("n_images"),
        n_rejected_S=column("n_rejected"),
        n_unfinished_S=column("n_unfinished"),
        n_branches_S=column("n_branches"),
    )


def _columns(connection: Connection, query: str) -> dict[str, NDArray[Any]]:
    """The columns of one of the package's queries as arrays: rows as objects would take gigabytes of many shards."""
    return dict(connection.execute(read_sql(query)).fetchnumpy())


def _pivot(columns: Mapping[str, NDArray[Any]], n_shards: int) -> tuple[list[int], Floats]:
    """The different bins, ascending, and how many (`n`) each shard (`place`) has of each, [S, bins]."""
    bins, places = np.unique(columns["bin"], return_inverse=True)
    table_SB = np.zeros((n_shards, len(bins)))
    table_SB[columns["place"], places] = columns["n"]
    return bins.tolist(), table_SB
