"""A labelling job: plan, label with Ray Data, commit each shard as soon as it is whole."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from model.fingerprint import fingerprint_folder
from pipeline.cluster.environment import cluster_address
from pipeline.cluster.nodes import available_nodes
from pipeline.cluster.pool import PoolPlan, plan_pool
from pipeline.cluster.ray_session import joined_ray
from pipeline.dataflow.actor_pool import stream_labels
from pipeline.dataflow.labeler import LabelerConfig
from pipeline.dataflow.rows import JOB_STAGES
from pipeline.errors import ClusterError, StorageError, StoreError, TagstreamError
from pipeline.labelling.assembly import ShardAssembler, WholeShard
from pipeline.labelling.job_metrics import JobMetrics
from pipeline.labelling.pending import ShardPlan, plan_shards
from pipeline.labelling.progress import Progress
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.labelling.tally import RejectTally
from pipeline.machine import installed_versions
from pipeline.metrics import repeated
from pipeline.settings.labelling import run_fingerprint
from pipeline.sources.image_folder import count_buckets
from pipeline.sources.listing import absolute_source, find_source
from pipeline.sources.shard import Shard, Source
from pipeline.storage.model_cache import as_seen_by_workers, fetch_model, model_name
from pipeline.store.lock import held_lock
from pipeline.store.ownership import CommittedShard
from pipeline.store.store import Store, check_run_name
from pipeline.text import conceal
from schemas import REJECTED, SCHEMA_VERSION, JobRecord, RunRecord

_LOG = logging.getLogger(__name__)
# Ray Data's driver keeps something of every block it has seen (ray-project/ray#66016): long jobs run in waves.
_SHARDS_PER_WAVE = 2000
COMMIT_THREADS = 8


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
        self._n_committing = 0
        """Whole shards that are being written or wait for it."""
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
            self._held.enter_context(held_lock(store.run(self.record.run), self.notes.append))
        plan = self.shard_plan = self.plan(store, source)
        if request.predict:
            self._predicted_s = request.predict(self.record, plan, request.settings.limit)
        if not plan.pending:
            record = self._job_record(plan, pool, "done")
            store.run(record.run).write_job(record)
            return LabelOutcome(record, self.notes)
        store.run(self.record.run).write_job(self._job_record(plan, pool, "running"))
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
        plan = plan_shards(store.run(self.record.run), source, self.record.folder_buckets, policy)
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
        """Makes the run or finds it, and refuses to go on with one that was made of something else."""
        request = self.request
        if request.run:
            check_run_name(request.run)
        self.progress.begin("reading the model")
        folder = fetch_model(request.model)
        model_fingerprint = fingerprint_folder(folder)
        labelling = request.settings.labelling(pool.dtype)
        fingerprint = run_fingerprint(model_fingerprint, labelling)
        wanted = RunRecord(
            run=request.run or f"{model_name(request.model)}-{fingerprint}",
            schema_version=SCHEMA_VERSION,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=conceal(absolute_source(source.given)),
            source_root=source.root,
            folder_buckets=count_buckets(len(source.images)) if source.images else 0,
            model=as_seen_by_workers(request.model),
            model_fingerprint=model_fingerprint,
            fingerprint=fingerprint,
            labelling=labelling,
            versions=installed_versions(),
        )
        self.run_name, self.source = wanted.run, wanted.source
        standing = store.run(wanted.run).read_record() or store.create_run(wanted)
        _check_same_run(standing, wanted, store.url)
        return standing

    def _label(self, store: Store, plan: ShardPlan, pool: PoolPlan) -> None:
        settings = self.request.settings
        model = as_seen_by_workers(self.request.model)
        config = LabelerConfig.of(model, settings, dtype=pool.dtype, device=pool.device, n_threads=pool.n_threads)
        config = replace(config, run=self.record.run, job=self.started_at)
        self._metrics = JobMetrics(self.record.run, self.started_at)
        self.progress.begin("loading the model")
        with repeated(lambda: self._metrics.show(self.progress.snapshot(), self._n_committing)):
            for wave in self._waves(plan.pending, settings.limit):
                rows = stream_labels(wave, pool, config, self.request.labeler_class, settings)
                # Closed at once where the job is stopped: a Ray that others use too must not go on working for nobody.
                with contextlib.closing(rows):
                    n_whole = self._commit_all(store, plan, rows)
                if n_whole != len(wave):
                    missing = f"{len(wave) - n_whole} of {len(wave)} shards came back incomplete"
                    raise TagstreamError(f"{missing}; run the command again, it labels them anew")

    def _waves(self, pending: list[Shard], limit: int) -> Iterator[list[Shard]]:
        """Shards in groups that are labelled one after the other; with a limit no more groups than it takes."""
        done = 0
        while done < len(pending):
            size = _SHARDS_PER_WAVE
            if limit:
                missing = limit - self._counts["images"]
                if missing <= 0:
                    return
                # How many images a shard holds is known once one was labelled.
                size = 1 if not done else max(1, round(missing * done / max(1, self._counts["images"])))
                size = min(size, _SHARDS_PER_WAVE)
            yield pending[done : done + size]
            done += size

    def _commit_all(self, store: Store, plan: ShardPlan, rows: Iterable[pa.Table]) -> int:
        """Commits shards in the background as their rows come in; waits for all of them. Returns: how many they are."""
        futures: set[Future[None]] = set()
        n_whole = 0
        with ThreadPoolExecutor(COMMIT_THREADS, thread_name_prefix="commit") as committers:
            for table in rows:
                n_rejected = pc.sum(pc.equal(table.column("status"), REJECTED)).as_py()
                self.progress.add_rows(table.num_rows, n_rejected)
                self._metrics.count_rows(table)
                for shard in self._assembler.add(table):
                    n_whole += 1
                    self._count_committing(1)
                    future = committers.submit(self._commit, store, shard, plan.replaced.get(shard.name))
                    future.add_done_callback(lambda _: self._count_committing(-1))
                    futures.add(future)
                # Never more whole shards in memory than threads to write them, and the first failure stops the job.
                while len(futures) > COMMIT_THREADS or any(future.done() for future in futures):
                    done, futures = wait_for(futures, return_when="FIRST_COMPLETED")
                    for future in done:
                        future.result()
            for future in futures:
                future.result()
        return n_whole

    def _count_committing(self, change: int) -> None:
        with self.progress.lock:
            self._n_committing += change

    def _commit(self, store: Store, shard: WholeShard, replaces: CommittedShard | None) -> None:
        started = time.perf_counter()
        whole = self.completed(store, shard, replaces)
        committed = whole is not None and self._write(store, whole, replaces)
        write_s = time.perf_counter() - started
        self._metrics.count_commit(write_s)
        with self.progress.lock:
            for stage, seconds in {**shard.seconds, "write": write_s}.items():
                self._seconds[stage] += seconds
            if committed:
                self._counts["shards"] += 1
                self._counts["images"] += shard.images.num_rows
                self._counts["labelled"] += shard.n_labelled
                self._counts["labels"] += shard.labels.num_rows
                self.rejects.add(shard.images)
        self.progress.add_shard(shard.images.num_rows)
        message = "committed" if committed else "left as it was, since another job committed it or its source changed"
        counts = {"n_images": shard.images.num_rows, "n_labelled": shard.n_labelled}
        _LOG.info("shard %s %s", shard.name, message, extra={"fields": {"shard": shard.name, **counts}})

    def _write(self, store: Store, shard: WholeShard, replaces: CommittedShard | None) -> bool:
        metadata = {
            "fingerprint": self.record.fingerprint,
            "source_size": shard.source_size,
            "source_etag": shard.source_etag,
        }
        return store.run(self.record.run).commit(shard.name, shard.images, shard.labels, metadata, replaces=replaces)

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


def _check_same_run(standing: RunRecord, wanted: RunRecord, store: str) -> None:
    if standing.schema_version != wanted.schema_version:
        raise StoreError(
            f"run {standing.run} in {store} has schema version {standing.schema_version}, this program writes "
            f"{wanted.schema_version}; use another --run or --store"
        )
    if standing.fingerprint != wanted.fingerprint:
        names = sorted({*standing.labelling, *wanted.labelling})
        differing = [
            f"{name} {standing.labelling.get(name)} -> {wanted.labelling.get(name)}"
            for name in names
            if standing.labelling.get(name) != wanted.labelling.get(name)
        ]
        if standing.model_fingerprint != wanted.model_fingerprint:
            differing.insert(0, f"model {standing.model} -> {wanted.model} (other weights or preprocessing)")
        raise StoreError(
            f"run {standing.run} in {store} was made with other settings ({'; '.join(differing)}); "
            "leave --run out or give another name to make a new run beside it"
        )
    if standing.source_root != wanted.source_root:
        raise StoreError(
            f"run {standing.run} in {store} labels {standing.source_root or standing.source}, not "
            f"{wanted.source_root or wanted.source}; give this source a --run name of its own"
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
        store.run(record.run).write_job(record)
    except StoreError:
        if not quietly:
            raise
