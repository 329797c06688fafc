"""A labelling job's waves of shards."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.errors import StoreError, TagstreamError
from pipeline.labelling import job as job_module
from pipeline.labelling.job import LabelJob
from pipeline.labelling.pending import ShardPlan
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.shard import Shard
from pipeline.store.store import Store
from tests.fixtures.corpus import write_tars
from tests.fixtures.tables import run_record

SHARDS = [Shard(str(number), f"/data/{number}.tar", "tar") for number in range(100)]


def waves(limit: int, images_per_shard: int, n_shards: int = 100) -> list[int]:
    """Sizes of the waves, if every shard that is labelled commits so many images."""
    job = LabelJob(LabelRequest(source="", store="", model="", settings=LabelSettings()))
    sizes = []
    for wave in job._waves(SHARDS[:n_shards], limit):
        sizes.append(len(wave))
        job._counts["images"] += len(wave) * images_per_shard
    return sizes


def test_without_a_limit_all_shards_are_labelled_in_large_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "_SHARDS_PER_WAVE", 40)
    assert waves(limit=0, images_per_shard=10) == [40, 40, 20]


def test_a_limit_costs_one_shard_to_learn_its_size_and_then_what_is_missing() -> None:
    assert waves(limit=95, images_per_shard=10) == [1, 8, 1]


def test_a_limit_within_the_first_shard_costs_that_shard() -> None:
    assert waves(limit=3, images_per_shard=10) == [1]


def test_a_limit_beyond_the_source_takes_all_of_it() -> None:
    assert sum(waves(limit=10_000, images_per_shard=10)) == 100


def test_shards_that_another_job_committed_first_do_not_stop_a_job_with_a_limit() -> None:
    assert sum(waves(limit=7, images_per_shard=0, n_shards=9)) == 9


def test_a_shard_of_which_nothing_came_back_fails_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(job_module, "stream_labels", lambda *_: (row for row in ()))
    job = LabelJob(LabelRequest(source="", store=str(tmp_path), model="demo"))
    job.record = run_record("r")
    plan = ShardPlan(SHARDS[:3], 3, [], {})
    pool = plan_pool([Node(2, 0)], job.request.settings)
    with pytest.raises(TagstreamError, match="3 of 3 shards came back incomplete; run the command again"):
        job._label(Store(str(tmp_path)), plan, pool)


def test_shards_that_are_being_written_are_counted_until_each_is(monkeypatch: pytest.MonkeyPatch) -> None:
    job = LabelJob(LabelRequest(source="", store="", model="demo"))
    may_go_on = [threading.Event() for _ in range(3)]
    shards = iter(range(3))
    seen = []

    def commit(_: object, shard: SimpleNamespace, __: object) -> None:
        may_go_on[shard.name].wait(10)

    def rows() -> Iterator[pa.Table]:
        table = pa.table({"status": ["labelled"]})
        yield from [table] * 3
        # What a watcher sees while the last are written, when no more rows come.
        for event in may_go_on:
            seen.append(job._n_committing)
            event.set()
            give_up = time.monotonic() + 5
            while job._n_committing == seen[-1] and time.monotonic() < give_up:
                time.sleep(0.001)

    monkeypatch.setattr(job, "_commit", commit)
    monkeypatch.setattr(job, "_metrics", SimpleNamespace(count_rows=lambda _: None), raising=False)
    monkeypatch.setattr(job, "_assembler", SimpleNamespace(add=lambda _: [SimpleNamespace(name=next(shards))]))
    job._commit_all(Store("/nowhere"), ShardPlan([], 3, [], {}), rows())
    assert (seen, job._n_committing) == ([3, 2, 1], 0)


@pytest.mark.parametrize("run", ["../run-1", "a/b", "-x", "größe", "x" * 101])
def test_a_run_name_that_cannot_be_part_of_a_path_is_refused_before_the_model_is_read(tmp_path: Path, run: str) -> None:
    write_tars(tmp_path / "source", 1, 1)
    request = LabelRequest(
        source=str(tmp_path / "source"), store=str(tmp_path / "store"), model=str(tmp_path / "no-model"), run=run
    )
    with pytest.raises(StoreError, match=f"run name {re.escape(repr(run))} cannot be used"):
        LabelJob(request).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
