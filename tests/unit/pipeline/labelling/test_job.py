"""A labelling job from its beginning to its end, in this process: only Ray is left out."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.labeler import LabelerConfig
from pipeline.errors import ClusterError, ModelError, RunLockedError, StoreError, TagstreamError
from pipeline.labelling import job as job_module
from pipeline.labelling.assignment import Assignment, OpenJob
from pipeline.labelling.job import LabelJob
from pipeline.labelling.pending import ShardPlan
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.settings.labelling import ComingNodes, LabelSettings
from pipeline.sources.batches import read_batches
from pipeline.sources.shard import Shard
from pipeline.store.store import Store
from schemas import JobRecord
from tests.fixtures.corpus import shard_bytes, write_tars
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.servers.fake_hub import FakeHub


def label_here(shards: list[Shard], pool: PoolPlan, config: LabelerConfig, *_: Any) -> Iterator[pa.Table]:
    """What the pool does, in this thread."""
    labeler = InstantLabeler(replace(config, job=""))
    for shard in shards:
        yield from (labeler(batch) for batch in read_batches(shard, pool.batch_size))


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "joined_ray", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(job_module, "stream_labels", label_here)


@pytest.fixture
def label_request(tmp_path: Path) -> LabelRequest:
    """Three shards of two samples."""
    write_tars(tmp_path / "source", 3, 2)
    settings = LabelSettings(top_k=5, batch_size=8)
    source, store = str(tmp_path / "source"), str(tmp_path / "store")
    return LabelRequest(source=source, store=store, model="demo", run="r", settings=settings)


def records(request: LabelRequest) -> list[JobRecord]:
    return Store(request.store).run("r").read_jobs()


def test_all_shards_are_committed_and_the_record_says_so(label_request: LabelRequest) -> None:
    job = LabelJob(label_request)
    outcome = job.run()
    record = outcome.record
    assert (record.outcome, record.n_shards_committed, record.n_images, record.n_labelled) == ("done", 3, 6, 6)
    assert records(label_request) == [record]
    assert job.counts == {"shards": 3, "images": 6, "labelled": 6, "labels": record.n_labels, "strange": 0}
    assert job.progress.snapshot().n_shards_done == 3


def test_a_job_with_nothing_to_do_starts_no_ray(label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    LabelJob(label_request).run()
    monkeypatch.setattr(job_module, "joined_ray", lambda *_: pytest.fail("Ray was started"))
    record = LabelJob(label_request).run().record
    assert (record.outcome, record.n_shards_done_before, record.n_shards_committed) == ("done", 3, 0)
    assert [kept.n_shards_committed for kept in records(label_request)] == [3, 0]


def test_the_record_says_running_while_shards_are_labelled(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def label(*arguments: Any) -> Iterator[pa.Table]:
        seen.extend(record.outcome for record in records(label_request))
        yield from label_here(*arguments)

    monkeypatch.setattr(job_module, "stream_labels", label)
    LabelJob(label_request).run()
    assert (seen, [record.outcome for record in records(label_request)]) == (["running"], ["done"])


def test_shards_of_which_nothing_came_back_fail_the_job(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "stream_labels", lambda *_: (row for row in ()))
    with pytest.raises(TagstreamError, match="3 of 3 shards came back incomplete; run the command again"):
        LabelJob(label_request).run()
    (record,) = records(label_request)
    assert (record.outcome, record.message[:15]) == ("failed", "3 of 3 shards c")


def test_a_job_that_is_stopped_is_interrupted_and_the_next_one_labels_the_rest(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(shards: list[Shard], *arguments: Any) -> Iterator[pa.Table]:
        yield from label_here(shards[:1], *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(job_module, "stream_labels", stop)
    with pytest.raises(KeyboardInterrupt):
        LabelJob(label_request).run()
    monkeypatch.setattr(job_module, "stream_labels", label_here)
    LabelJob(label_request).run()
    assert [(record.outcome, record.n_images, record.message) for record in records(label_request)] == [
        ("interrupted", 2, ""),
        ("done", 4, ""),
    ]


def test_an_error_is_not_hidden_by_a_store_that_cannot_keep_the_record_of_it(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Iterator[pa.Table]:
        shutil.rmtree(label_request.store)
        Path(label_request.store).write_text("no folder")
        raise TagstreamError("an actor died")
        yield

    monkeypatch.setattr(job_module, "stream_labels", fail)
    with pytest.raises(TagstreamError, match=r"^an actor died$"):
        LabelJob(label_request).run()


def test_rows_are_labelled_no_more_once_the_job_has_failed(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Assignment):
        def on_rows(self, rows: pa.Table) -> None:
            raise TagstreamError("no more")

    closed = []

    def label(*arguments: Any) -> Iterator[pa.Table]:
        try:
            yield from label_here(*arguments)
        finally:
            closed.append(True)

    monkeypatch.setattr(job_module, "stream_labels", label)
    with pytest.raises(TagstreamError, match="no more"):
        LabelJob(label_request, Failing()).run()
    assert closed == [True]


def test_with_a_limit_no_more_shards_are_labelled_than_it_takes(label_request: LabelRequest) -> None:
    limited = replace(label_request, settings=replace(label_request.settings, limit=3))
    assert LabelJob(limited).run().record.n_shards_committed == 2
    assert LabelJob(limited).run().record.n_shards_committed == 1


def test_what_was_predicted_is_kept_beside_what_it_took(label_request: LabelRequest) -> None:
    asked = []

    def predict(*arguments: Any) -> float:
        asked.append(arguments)
        return 12.0

    settings = replace(label_request.settings, limit=5)
    assert LabelJob(replace(label_request, settings=settings, predict=predict)).run().record.predicted_s == 12.0
    ((run, plan, limit),) = asked
    assert (run.run, len(plan.pending), limit) == ("r", 3, 5)


@pytest.mark.parametrize(
    ("policy", "n_committed", "done"),
    [("relabel", 1, "they are labelled again"), ("keep", 0, "--changed relabel renews them")],
)
def test_shards_that_changed_are_named_with_what_is_done_about_them(
    label_request: LabelRequest, policy: str, n_committed: int, done: str
) -> None:
    LabelJob(label_request).run()
    (Path(label_request.source) / "00001.tar").write_bytes(shard_bytes(7, 5))
    outcome = LabelJob(replace(label_request, settings=replace(label_request.settings, changed=policy))).run()
    assert (outcome.record.n_shards_changed, outcome.record.n_shards_committed) == (1, n_committed)
    (note,) = outcome.notes
    assert note.startswith("1 shards changed at the source after they were committed (00001); ")
    assert note.endswith(done)


def test_a_run_that_another_job_holds_is_left_alone(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, outcomes = replace(label_request, lock=True), []

    def label(*arguments: Any) -> Iterator[pa.Table]:
        with pytest.raises(RunLockedError):
            LabelJob(locked).run()
        outcomes.append("locked")
        yield from label_here(*arguments)

    monkeypatch.setattr(job_module, "stream_labels", label)
    assert LabelJob(locked).run().record.outcome == "done"
    assert (outcomes, LabelJob(locked).run().record.outcome) == (["locked"], "done")


def test_nodes_to_come_need_a_cluster(label_request: LabelRequest) -> None:
    settings = LabelSettings(nodes_to_come=ComingNodes(count=2, cpus=4))
    with pytest.raises(ClusterError, match="this machine will not grow; name a Ray cluster with --address"):
        LabelJob(replace(label_request, settings=settings)).run()


def test_an_assignment_decides_what_is_labelled_and_what_is_committed(label_request: LabelRequest) -> None:
    class First(Assignment):
        """The first shard, to be committed without its labels."""

        is_retry = True

        def fit_pool(self, pool: PoolPlan) -> PoolPlan:
            return replace(pool, batch_size=1)

        def plan(self, job: OpenJob) -> ShardPlan:
            job.notes.append("only one")
            return ShardPlan(job.source.shards[:1], len(job.source.shards), [], {})

        def on_rows(self, rows: pa.Table) -> None:
            tables.append(rows.num_rows)

        def complete(self, job: OpenJob, shard: Any, former: Any) -> Any:
            return replace(shard, labels=shard.labels.slice(0, 0))

    tables: list[int] = []
    outcome: LabelOutcome = LabelJob(label_request, First()).run()
    assert (tables, outcome.notes, outcome.record.n_retried) == ([1, 1], ["only one"], 2)
    run = Store(label_request.store).run("r")
    images, labels = run.read_shard("00000", run.committed()["00000"])
    assert (images.num_rows, labels.num_rows) == (2, 0)


@pytest.mark.parametrize("run", ["../run-1", "a/b", "-x", "größe", "x" * 101])
def test_a_run_name_that_cannot_be_part_of_a_path_is_refused_before_the_model_is_read(tmp_path: Path, run: str) -> None:
    write_tars(tmp_path / "source", 1, 1)
    request = LabelRequest(
        source=str(tmp_path / "source"), store=str(tmp_path / "store"), model=str(tmp_path / "no-model"), run=run
    )
    with pytest.raises(StoreError, match=f"run name {re.escape(repr(run))} cannot be used"):
        LabelJob(request).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


class TestModelsOfTheHub:
    """The commit that a name means is looked up once."""

    def test_it_is_in_the_runs_record_and_given_to_the_workers(
        self, label_request: LabelRequest, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = []

        def label_and_keep(shards: list[Shard], pool: PoolPlan, config: LabelerConfig, *_: Any) -> Iterator[pa.Table]:
            given.append(config.model)
            return label_here(shards, pool, config)

        monkeypatch.setattr(job_module, "stream_labels", label_and_keep)
        record = LabelJob(replace(label_request, model="org/tiny", run=None)).run().record
        run = Store(label_request.store).run(record.run).read_record()
        assert run is not None
        assert run.model == f"org/tiny@{hub.models['org/tiny'].revisions['main']}"
        assert given == [run.model]
        assert record.run == f"tiny-{run.fingerprint}"

    def test_one_that_cannot_label_stops_the_job_before_anything_is_listed_written_or_started(
        self, label_request: LabelRequest, hub: FakeHub
    ) -> None:
        job = LabelJob(replace(label_request, source="/nowhere", model="org/moondream"))
        with pytest.raises(ModelError, match="org/moondream needs code from the hub"):
            job.run()
        assert job.progress.snapshot().phase == "finding the model"
        assert not Path(label_request.store).exists()
