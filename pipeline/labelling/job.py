"""A labelling job: plan, label with Ray Data, commit each shard as soon as it is whole."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
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
from pipeline.errors import ClusterError, StorageError, StoreError, TagstreamError
from pipeline.labelling.assembly import ShardAssembler, WholeShard
from pipeline.labelling.committing import Commit, Committer
from pipeline.labelling.job_metrics import JobMetrics
from pipeline.labelling.pending import ShardPlan, cut_waves, plan_shards
from pipeline.labelling.progress import Progress
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.labelling.run_identity import RunIdentity
from pipeline.labelling.tally import RejectTally, StartedJob, Tally
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

    is_retry = False
    """Whether the images to label had been rejected before."""

    def __init__(self, request: LabelRequest) -> None:
        self.request = request
        self.progress = Progress()
        self.notes: list[str] = []
        """What the user should know when the job is over."""
        self.run_name = request.run or ""
        """Empty until it is known."""
        self.source = conceal(request.source)
        self.shard_plan: ShardPlan | None = None
        self.started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        """Names the job: that of its record."""
        self._tally = Tally()
        self._held = contextlib.ExitStack()
        self._assembler = ShardAssembler()

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
        make_record = partial(self._tally.job_record, self._started_job(plan, pool), self.progress)
        if plan.pending:
            with _recorded(store, make_record):
                self.progress.begin("starting Ray", len(plan.pending))
                self._start_ray()
                with _said_how_to_go_on():
                    self._label(store, plan, pool)
        record = make_record("done")
        store.write_job(record)
        return LabelOutcome(record, self.notes)

    def _started_job(self, plan: ShardPlan, pool: PoolPlan) -> StartedJob:
        predict, limit = self.request.predict, self.request.settings.limit
        return StartedJob(
            run=self.record.run,
            started=self.started_at,
            command=self.request.command,
            plan=plan,
            pool=pool,
            predicted_s=predict(self.record, plan, limit) if predict else 0.0,
            is_retry=self.is_retry,
        )

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
        return self._tally.counts

    @property
    def rejects(self) -> RejectTally:
        """What is committed as rejected."""
        return self._tally.rejects

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job was made."""
        return self._tally.elapsed_s

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
        self._tally.add(commit)
        self.progress.add_shard(shard.images.num_rows)
        kept = "left as it was, since another job committed it or its source changed"
        result = "committed" if commit.is_written else kept
        counts = {"n_images": shard.images.num_rows, "n_labelled": shard.n_labelled}
        _LOG.info("shard %s %s", shard.name, result, extra={"fields": {"shard": shard.name, **counts}})


def _changed_notes(plan: ShardPlan, policy: str) -> list[str]:
    if not plan.changed:
        return []
    listed = ", ".join(shard.name for shard in plan.changed[:5]) + (", ..." if len(plan.changed) > 5 else "")
    done = "they are labelled again" if policy == "relabel" else "their labels are kept; --changed relabel renews them"
    return [f"{len(plan.changed)} shards changed at the source after they were committed ({listed}); {done}"]


@contextlib.contextmanager
def _recorded(store: Store, make_record: Callable[[str, str], JobRecord]) -> Iterator[None]:
    """Writes the job's record: that it is running, and where it fails, how it ended."""
    store.write_job(make_record("running", ""))
    try:
        yield
    except BaseException as error:
        ending = ("interrupted", "") if isinstance(error, KeyboardInterrupt) else ("failed", str(error))
        # One more error of the store must not hide this one.
        with contextlib.suppress(StoreError):
            store.write_job(make_record(*ending))
        raise


@contextlib.contextmanager
def _said_how_to_go_on() -> Iterator[None]:
    """Adds to the error of a storage what becomes of the work that is done."""
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{error}; what is committed stays, and the same command goes on from there") from error
