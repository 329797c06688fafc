"""A labelling job: plan, label with Ray Data, commit each shard as soon as it is whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from model.demo_scenes import is_demo_model
from pipeline.actor.batch_size import TO_BE_FOUND, batch_size_of_job
from pipeline.actor.labeler import LabelerConfig
from pipeline.cluster.environment import cluster_address
from pipeline.cluster.nodes import available_nodes
from pipeline.cluster.pool import PoolPlan, plan_pool
from pipeline.cluster.ray_session import joined_ray
from pipeline.cluster.small_jobs import fit_small_job
from pipeline.errors import ClusterError, StorageError, StoreError, TagstreamError
from pipeline.labelling.assignment import Assignment, OpenJob
from pipeline.labelling.notes import notes_of_centre, notes_of_former_rule, notes_of_job, notes_of_model
from pipeline.labelling.pending import ShardPlan, cut_to_limit
from pipeline.labelling.progress import (
    COMPARING,
    FINDING_BATCH_SIZE,
    LOADING_MODEL,
    READING_KNOWN,
    STARTING_RAY,
    Progress,
)
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.labelling.reusing import Reuse, check_stores, open_order
from pipeline.labelling.run_identity import RunIdentity
from pipeline.labelling.shard_flow import ShardFlow
from pipeline.labelling.tally import RejectTally, StartedJob, Tally
from pipeline.settings.labelling import FORMER_LABELLING, full_labelling
from pipeline.sources.folder_metadata import describe_shards
from pipeline.sources.listing import find_source, source_name
from pipeline.sources.parquet_reader import check_columns
from pipeline.sources.shard import Shard
from pipeline.storage.model_cache import pin_model
from pipeline.store.lists import RunLists
from pipeline.store.lock import held_lock
from pipeline.store.run import Run
from pipeline.store.store import Store, check_run_name
from pipeline.text import conceal, counted
from schemas import JobRecord


class LabelJob:
    """Labels images of a source and commits them to a run, shard by shard.

    Args:
        assignment: which images it labels; default all that the run does not hold yet.
    """

    def __init__(self, request: LabelRequest, assignment: Assignment | None = None) -> None:
        self.request = request
        self.progress = Progress()
        self.notes: list[str] = []
        """What the user should know when the job is over."""
        self.run_name = request.run or ""
        """Name of the run; empty until it is known."""
        self.source = conceal(source_name(request.sources))
        """The source without logins, and with an absolute path once it was found."""
        self.skipped: dict[str, int] = {}
        """How many files of the source are left out, by kind; known once it was found."""
        self.n_skipped_before = 0
        """How many of them the run's former job left out."""
        self.shard_plan: ShardPlan | None = None
        """The shards to label; None until the source was compared with the run."""
        self.started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        """UTC, ISO 8601. It identifies the job, and is in its record."""
        self.n_image_tokens = 0
        """Tokens that a photograph costs a model of the hub; 0 until they are known, and for other recognizers."""
        self._assignment = assignment or Assignment()
        self._tally = Tally()
        self._reuse: Reuse | None = None
        """What gives images the labels of others; None where labels are not reused."""

    @property
    def counts(self) -> dict[str, int]:
        """What is committed, as `Tally.counts` has it."""
        return self._tally.counts

    @property
    def rejects(self) -> RejectTally:
        """The committed images that were rejected, by class of fault."""
        return self._tally.rejects

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job was made."""
        return self._tally.elapsed_s

    def run(self) -> LabelOutcome:
        """Does the job.

        Raises TagstreamError where it cannot be done, RunLockedError where another job holds the run, KeyboardInterrupt
        where it is stopped. What is committed stays, and the same command goes on from there.
        """
        with contextlib.ExitStack() as held:
            job, plan = self._compare(self._open(held))
            make_record = partial(self._tally.job_record, self._started_job(job, plan), self.progress)
            if plan.pending:
                self.notes += notes_of_former_rule(job)
            pending = self._open_reuse(job, plan.pending)
            n_shards, is_stopped = len(pending) + len(plan.lists.shards), False
            if n_shards:
                with _recorded(job.run, make_record):
                    is_stopped = self._label(job, plan, pending, make_record, held)
            record = make_record("done")
            job.run.write_job(record)
            self.notes += notes_of_centre(job.record, self._tally.n_long, record.n_labelled)
            self.notes += notes_of_job(record, self.request.settings.limit)
            limit = self.request.time_limit
            if limit is None or not is_stopped:
                return LabelOutcome(record, self.notes, job.source.skipped)
            n_left = n_shards - self.progress.n_shards_done
            left = f"{counted(n_left, 'shard')} {'is' if n_left == 1 else 'are'} left, and the same command goes on"
            self.notes.append(f"the limit of time ended the job ({limit.alarm}); {left}")
            if not self.progress.n_shards_done:
                self.notes.append(
                    "no shard was whole by then, and the next job begins where this one began: give it more time, or "
                    "make smaller shards"
                )
            return LabelOutcome(record, self.notes, job.source.skipped, limit.alarm)

    def _open(self, held: contextlib.ExitStack) -> OpenJob:
        """Finds the source and opens the run. Ray, where it is joined, and the run's lock are held by `held`."""
        # What costs nothing comes before what takes long: a wrong name of a run, then a model that cannot be used.
        if self.request.run:
            check_run_name(self.request.run)
        self.progress.begin("finding the model")
        model = pin_model(self.request.model)
        request = self.request = replace(self.request, model=model.name)
        self.progress.begin("listing the source")
        source = find_source(*request.sources)
        # Before the run is made, which keeps the columns that were asked for.
        self.notes += check_columns(source.shards, request.columns)
        store = Store(request.store)
        pool = self._assignment.fit_pool(_plan_pool(request, self.progress, held))
        size = f"{model.missing_bytes / 1e6:,.0f} MB"
        self.progress.begin(f"fetching the model, {size}" if model.missing_bytes else "reading the model")
        identity = RunIdentity.of(request, source, pool)
        self.run_name, self.source = identity.wanted.run, identity.wanted.source
        self.n_image_tokens = identity.n_image_tokens
        self.notes += notes_of_model(identity, request.settings)
        if request.lists:
            request.labeler_class.check_lists(request.model, request.settings.hub, request.lists)
        # Before the run is made, which goes on reusing labels from then on.
        check_stores(request.settings.reuse_stores, store.url)
        record = identity.open_run(store)
        self.run_name = record.run
        made_by = full_labelling(record.labelling)
        run = store.run(record.run)
        source = source.of_kind(is_folder=bool(record.folder_buckets)) or source
        self.notes += source.notes
        if request.lock:
            held.enter_context(held_lock(run, self.notes.append))
        for of_list in request.lists:
            # Before any of its labels: nobody finds labels of a list that is not known.
            RunLists(run).create(of_list.record(run.name, self.started_at))
        return OpenJob(
            run=run,
            record=record,
            source=source,
            sources=identity.wanted.addresses,
            settings=replace(request.settings, **{name: made_by[name] for name in FORMER_LABELLING}),
            pool=pool,
            progress=self.progress,
            lists=request.lists,
            notes=self.notes,
        )

    def _compare(self, job: OpenJob) -> tuple[OpenJob, ShardPlan]:
        """What there is to label, and the job with a pool that fits it."""
        former = job.run.read_jobs()
        self.skipped, self.n_skipped_before = job.source.skipped, former[-1].n_skipped if former else 0
        self.progress.begin(COMPARING)
        plan = self.shard_plan = self._assignment.plan(job).with_columns(self.request.columns)
        if plan.pending and job.record.folder_buckets:
            pending, notes = describe_shards(job.source.root, plan.pending)
            plan = self.shard_plan = replace(plan, pending=pending)
            self.notes += notes
        return replace(job, pool=self._fit_pool(job, plan, former)), plan

    def _open_reuse(self, job: OpenJob, pending: list[Shard]) -> list[Shard]:
        """The shards to label within the limit; where labels are reused, in the order in which they are."""
        limit = self.request.settings.limit
        if pending and job.lists and (self._reuses(job) or self._skips(job)):
            why = "reuses labels" if self._reuses(job) else "gives images that look alike the labels of one"
            raise TagstreamError(
                f"run {job.run.name} {why}, and scores of a list of names are not reused; label without "
                "--names first, then once more with it, which adds the scores"
            )
        if not pending or not self._reuses(job):
            return cut_to_limit(pending, limit)
        self.progress.begin(READING_KNOWN)
        order = open_order(job, pending, job.pool, self.request.settings.reuse_stores)
        pending = cut_to_limit(sorted(pending, key=lambda shard: order.number_of(shard.name)), limit)
        self._reuse = Reuse(job, order, pending)
        return pending

    def _reuses(self, job: OpenJob) -> bool:
        """Whether images get the labels of images of the same content."""
        return job.record.reuses and not self._assignment.is_retry

    def _skips(self, job: OpenJob) -> bool:
        """Whether an image that looks like an earlier one of its shard is not labelled."""
        return "skip_near_duplicates" in job.record.labelling and not self._assignment.is_retry

    def _fit_pool(self, job: OpenJob, plan: ShardPlan, former: Sequence[JobRecord]) -> PoolPlan:
        settings, n_bytes = self.request.settings, self._assignment.n_bytes(plan)
        pool = fit_small_job(job.pool, n_bytes, self.request.address, settings)
        return replace(pool, batch_size=batch_size_of_job(settings.batch_size, pool, former, n_bytes))

    def _find_batch_size(self, job: OpenJob) -> PoolPlan:
        # Brings in Ray, which has been joined by now.
        from pipeline.dataflow.actor_pool import find_batch_size

        self.progress.begin(FINDING_BATCH_SIZE)
        timeout_s = self.request.settings.no_progress_timeout_s
        found = find_batch_size(job.pool, self._labeler_config(job), self.request.labeler_class, timeout_s)
        self.progress.batch_size = found
        return replace(job.pool, batch_size=found)

    def _started_job(self, job: OpenJob, plan: ShardPlan) -> StartedJob:
        predict, limit = self.request.predict, self.request.settings.limit
        return StartedJob(
            run=job.run.name,
            started=self.started_at,
            command=self.request.command,
            plan=plan,
            pool=job.pool,
            predicted_s=predict(job.record, plan, limit) if predict else 0.0,
            is_retry=self._assignment.is_retry,
            skipped=job.source.skipped,
            n_skipped_before=self.n_skipped_before,
            sources=[] if job.sources == job.record.addresses else job.sources,
        )

    def _label(
        self,
        job: OpenJob,
        plan: ShardPlan,
        pending: list[Shard],
        make_record: Callable[[str, str], JobRecord],
        held: contextlib.ExitStack,
    ) -> bool:
        """Labels the pending shards and adds scores of lists to others. Returns whether the limit of time ended it."""
        self.progress.begin(
            LOADING_MODEL if job.pool.in_process else STARTING_RAY, len(pending) + len(plan.lists.shards)
        )
        if not job.pool.in_process:
            held.enter_context(joined_ray(self.request.address, self.request.verbose))
        if job.pool.batch_size == TO_BE_FOUND:
            job = replace(job, pool=self._find_batch_size(job))
            # Before any image: a job that goes on with this one's run has to label in the same batches.
            job.run.write_job(make_record("running", ""))
        flow = ShardFlow(
            job=job,
            request=self.request,
            assignment=self._assignment,
            config=replace(self._labeler_config(job), skip_near_duplicates=self._skips(job)),
            tally=self._tally,
            reuse=self._reuse,
        )
        with _said_how_to_go_on():
            if pending:
                flow.label(plan, pending)
            if plan.lists.shards and not flow.is_stopped:
                flow.add_lists(plan.lists)
            flow.check_failures()
        return flow.is_stopped

    def _labeler_config(self, job: OpenJob) -> LabelerConfig:
        request, pool = self.request, job.pool
        config = LabelerConfig.of(
            request.model, job.settings, dtype=pool.dtype, device=pool.device, n_threads=pool.n_threads
        )
        lists, batch_size, is_demo = job.lists, pool.batch_size, is_demo_model(job.record.model_fingerprint)
        # What looks alike is skipped where whole shards are labelled, and nowhere else.
        config = replace(config, perceptual_hash=job.record.perceptual_hash, skip_near_duplicates=False)
        return replace(
            config, run=job.run.name, job=self.started_at, lists=lists, batch_size=batch_size, is_demo=is_demo
        )


def _plan_pool(request: LabelRequest, progress: Progress, held: contextlib.ExitStack) -> PoolPlan:
    """A pool on this machine, or on the cluster, which is joined for it."""
    if cluster_address(request.address):
        progress.begin(STARTING_RAY)
        held.enter_context(joined_ray(request.address, request.verbose))
    elif request.settings.nodes_to_come.count:
        raise ClusterError("nodes_to_come is set, but this machine will not grow; name a Ray cluster with --address")
    return plan_pool(available_nodes(request.address), request.settings)


@contextlib.contextmanager
def _recorded(run: Run, make_record: Callable[[str, str], JobRecord]) -> Iterator[None]:
    """Writes the job's record: that it is running, and where it fails, how it ended."""
    run.write_job(make_record("running", ""))
    try:
        yield
    except BaseException as error:
        ending = ("interrupted", "") if isinstance(error, KeyboardInterrupt) else ("failed", str(error))
        # One more error of the store must not hide this one.
        with contextlib.suppress(StoreError):
            run.write_job(make_record(*ending))
        raise


@contextlib.contextmanager
def _said_how_to_go_on() -> Iterator[None]:
    """Adds to the error of a storage what becomes of the work that is done."""
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{error}; what is committed stays, and the same command goes on from there") from error
