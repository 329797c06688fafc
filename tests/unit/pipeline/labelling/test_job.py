"""A labelling job: shards that do not come back, and those that are being written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.errors import TagstreamError
from pipeline.labelling import job as job_module
from pipeline.labelling.job import LabelJob
from pipeline.labelling.pending import ShardPlan
from pipeline.labelling.request import LabelRequest
from pipeline.sources.shard import Shard
from pipeline.store.store import Store
from tests.fixtures.tables import run_record

SHARDS = [Shard(str(number), f"/data/{number}.tar", "tar") for number in range(100)]


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
