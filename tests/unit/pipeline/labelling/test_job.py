"""A labelling job whose shards do not come back."""

from __future__ import annotations

from pathlib import Path

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
