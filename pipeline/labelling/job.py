"""A labelling job: plan, label with Ray Data, commit each shard as soon as it is whole."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cluster.environment import cluster_address
from pipeline.cluster.nodes import available_nodes
from pipeline.cluster.pool import PoolPlan, plan_pool
from pipeline.cluster.ray_session import joined_ray
from pipeline.dataflow.actor_pool import stream_labels
from pipeline.dataflow.labeler import LabelerConfig
from pipeline.dataflow.rows import JOB_STAGES
from pipeline.errors import ClusterError, StorageError, StoreError, TagstreamError
from pipeline.labelling.assembly import ShardAssembler, WholeShard
from pipeline.labelling.committing import Commit, Committer
from pipeline.labelling.job_metrics import JobMetrics
from pipeline.labelling.pending import ShardPlan, cut_waves, plan_shards
from pipeline.labelling.progress import Progress
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.labelling.run_identity import RunIdentity
from pipeline.labelling.tally import RejectTally
from pipeline.metrics import repeated
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Source
from pipeline.storage.model_cache import as_seen_by_workers
from pipeline.store.lock import held_lock
from pipeline.store.ownership import CommittedShard
from pipeline.store.store import Store
from pipeline.text import conceal
from schemas import REJECTED, JobRecord, RunRecord

_LOG = logging.getLogger(__name__)


class LabelJob:
    """Labels what a source holds and a run does not, and commits it shard by shard."""

    def __init__(self, request: LabelRequest) -> None:
        self.request = request
        self.progress = Progress()
        self.notes: list[str] = []
        """What the user should know when the job is over."""
        self.rejects = RejectTally()
        self.run_name = request.run or ""
        """Empty until it is known."""
        self.source = conceal(request.source)
        self.shard_plan: ShardPlan | None = None
        self.started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        """Names the job: that of its record."""
        self._started = time.perf_counter()
        self._held = contextlib.ExitStack()
        self._assembler = ShardAssembler()
        self._predicted_s = 0.0
        self._seconds = dict.fromkeys(JOB_STAGES, 0.0)
        self._counts = dict.fromkeys(("shards", "images", "labelled", "labels"), 0)

    def run(self) -> LabelOutcome:
        """Does the job. Raises TagstreamError where it cannot be done, RunLockedError where another job holds the run,
        KeyboardInterrupt where it was stopped; what was committed until then stays, and the same command goes on from
        there.
        """
        with self._held:
            return self._run()

    def _run(self) -> LabelOutcome:
        request = self.request
        self.progress.begin("listing the source")
        source = find_source(request.source)
        self.notes += source.notes
        store = Store(request.store)
        pool = self._plan_pool()
        self.record = self._open_run(store, source, pool)
        if request.lock:
            self._held.enter_context(held_lock(store, self.record.run, self.notes.append))
        plan = self.shard_plan = self.plan(store, source)
        if request.predict:
            self._predicted_s = request.predict(self.record, plan, request.settings.limit)
        if not plan.pending:
            record = self._job_record(plan, pool, "done")
            store.write_job(record)
            return LabelOutcome(record, self.notes)
        store.write_job(self._job_record(plan, pool, "running"))
        self.progress.begin("starting Ray", len(plan.pending))
        outcome, message = "failed", ""
        try:
            self._start_ray()
            with _said_how_to_go_on():
                self._label(store, plan, pool)
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        except BaseException as error:
            message = str(error)
            raise
        finally:
            record = self._job_record(plan, pool, outcome, message)
            _write_last_record(store, record, quietly=outcome != "done")
        return LabelOutcome(record, self.notes)

    def plan(self, store: Store, source: Source) -> ShardPlan:
        """What there is to do: the shards of the source, less those that are committed."""
        policy = self.request.settings.changed
        plan = plan_shards(store, self.record.run, source, self.record.folder_buckets, policy)
        self.notes += _changed_notes(plan, policy)
        return plan

    def completed(self, store: Store, shard: WholeShard, replaces: CommittedShard | None) -> WholeShard | None:
        """What is committed of a shard whose rows came back; None where it has to stay as it was."""
        return shard

    @property
    def counts(self) -> dict[str, int]:
        """What is committed: shards, images, labelled, labels."""
        with self.progress.lock:
            return dict(self._counts)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._started

    @property
    def n_retried(self) -> int:
        """How many of the images had been rejected before."""
        return 0

    def _plan_pool(self) -> PoolPlan:
        if cluster_address(self.request.address):
            self._start_ray()
        elif self.request.settings.nodes_to_come.count:
            raise ClusterError(
                "nodes_to_come is set, but this machine will not grow; name a Ray cluster with --address"
            )
        return plan_pool(available_nodes(self.request.address), self.request.settings)

    def _start_ray(self) -> None:
        self._held.enter_context(joined_ray(self.request.address, self.request.verbose))

    def _open_run(self, store: Store, source: Source, pool: PoolPlan) -> RunRecord:
        self.progress.begin("reading the model")
        identity = RunIdentity.of(self.request, source, pool)
        self.run_name, self.source = identity.wanted.run, identity.wanted.source
        return identity.open_run(store)

    def _label(self, store: Store, plan: ShardPlan, pool: PoolPlan) -> None:
        settings = self.request.settings
        model = as_seen_by_workers(self.request.model)
        config = LabelerConfig.of(model, settings, dtype=pool.dtype, device=pool.device, n_threads=pool.n_threads)
        config = replace(config, run=self.record.run, job=self.started_at)
        self._metrics = JobMetrics(self.record.run, self.started_at)
        complete = partial(self.completed, store)
        committer = Committer(store, self.record, plan.replaced, complete, self._count_commit)
        self.progress.begin("loading the model")
        with repeated(lambda: self._metrics.show(self.progress.snapshot(), committer.n_committing)):
            for wave in cut_waves(plan.pending, settings.limit, lambda: self.counts["images"]):
                rows = stream_labels(wave, pool, config, self.request.labeler_class, settings)
                # Closed at once where the job is stopped: a Ray that others use too must not go on working for nobody.
                with contextlib.closing(rows):
                    n_whole = self._commit_all(committer, rows)
                if n_whole != len(wave):
                    missing = f"{len(wave) - n_whole} of {len(wave)} shards came back incomplete"
                    raise TagstreamError(f"{missing}; run the command again, it labels them anew")

    def _commit_all(self, committer: Committer, rows: Iterable[pa.Table]) -> int:
        return committer.commit_all(self._assembled(rows))

    def _assembled(self, rows: Iterable[pa.Table]) -> Iterator[list[WholeShard]]:
        """The shards that became whole with each table of rows, often none. Counts the rows."""
        for table in rows:
            n_rejected = pc.sum(pc.equal(table.column("status"), REJECTED)).as_py()
            self.progress.add_rows(table.num_rows, n_rejected)
            self._metrics.count_rows(table)
            yield self._assembler.add(table)

    def _count_commit(self, commit: Commit) -> None:
        shard = commit.shard
        self._metrics.count_commit(commit.seconds)
        with self.progress.lock:
            for stage, seconds in {**shard.seconds, "write": commit.seconds}.items():
                self._seconds[stage] += seconds
            if commit.is_written:
                self._counts["shards"] += 1
                self._counts["images"] += shard.images.num_rows
                self._counts["labelled"] += shard.n_labelled
                self._counts["labels"] += shard.labels.num_rows
                self.rejects.add(shard.images)
        self.progress.add_shard(shard.images.num_rows)
        kept = "left as it was, since another job committed it or its source changed"
        result = "committed" if commit.is_written else kept
        counts = {"n_images": shard.images.num_rows, "n_labelled": shard.n_labelled}
        _LOG.info("shard %s %s", shard.name, result, extra={"fields": {"shard": shard.name, **counts}})

    def _job_record(self, plan: ShardPlan, pool: PoolPlan, outcome: str, message: str = "") -> JobRecord:
        counts, labelling_s = self._counts, self.progress.labelling_s
        return JobRecord(
            run=self.record.run,
            started=self.started_at,
            outcome=outcome,
            command=conceal(self.request.command),
            n_shards_source=plan.n_shards,
            n_shards_done_before=plan.n_done,
            n_shards_committed=counts["shards"],
            n_shards_changed=len(plan.changed),
            n_images=counts["images"],
            n_labelled=counts["labelled"],
            n_rejected=counts["images"] - counts["labelled"],
            n_labels=counts["labels"],
            seconds=round(self.elapsed_s, 3),
            labelling_s=round(labelling_s, 3),
            images_per_s=round(self.progress.images_per_s, 2),
            seconds_by_stage={stage: round(seconds, 3) for stage, seconds in self._seconds.items()},
            workers={"actors": pool.n_actors, "device": pool.device, "batch_size": pool.batch_size},
            message=conceal(message),
            n_retried=self.n_retried,
            predicted_s=round(self._predicted_s, 3),
        )


def _changed_notes(plan: ShardPlan, policy: str) -> list[str]:
    if not plan.changed:
        return []
    listed = ", ".join(shard.name for shard in plan.changed[:5]) + (", ..." if len(plan.changed) > 5 else "")
    done = "they are labelled again" if policy == "relabel" else "their labels are kept; --changed relabel renews them"
    return [f"{len(plan.changed)} shards changed at the source after they were committed ({listed}); {done}"]


@contextlib.contextmanager
def _said_how_to_go_on() -> Iterator[None]:
    """Adds to the error of a storage what becomes of the work that is done."""
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{error}; what is committed stays, and the same command goes on from there") from error


def _write_last_record(store: Store, record: JobRecord, quietly: bool) -> None:
    """Writes the job's final record; while another error is on its way, one more of the store must not hide it."""
    try:
        store.write_job(record)
    except StoreError:
        if not quietly:
            raise
