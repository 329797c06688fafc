"""A labelling job: plan, label with Ray Data, commit each shard as soon as it is whole."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from model.demo_scenes import is_demo_model
from pipeline.actor.batch_size import TO_BE_FOUND, batch_size_of_job
from pipeline.actor.labeler import LabelerConfig
from pipeline.cluster.environment import cluster_address
from pipeline.cluster.nodes import available_nodes
from pipeline.cluster.pool import PoolPlan, plan_pool
from pipeline.cluster.ray_session import joined_ray
from pipeline.cluster.small_jobs import fit_small_job
from pipeline.dataflow.decode_place import PlaceOfDecoding
from pipeline.dataflow.streaming import open_labelers
from pipeline.dataflow.waves import Stream, Wave
from pipeline.errors import ClusterError, StorageError, StoreError, TagstreamError
from pipeline.labelling.assembly import ShardAssembler, WholeShard, count_marked
from pipeline.labelling.assignment import Assignment, OpenJob
from pipeline.labelling.committing import Commit, Committer
from pipeline.labelling.job_metrics import JobMetrics
from pipeline.labelling.listing import ListCommitter, ListPlan
from pipeline.labelling.notes import notes_of_former_rule, notes_of_job, notes_of_model
from pipeline.labelling.pending import ShardPlan, cut_to_limit, cut_waves
from pipeline.labelling.progress import (
    COMPARING,
    FINDING_BATCH_SIZE,
    LOADING_MODEL,
    READING_KNOWN,
    STARTING_RAY,
    STARTING_WORKERS,
    Progress,
)
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.labelling.reusing import Reuse, open_order
from pipeline.labelling.run_identity import RunIdentity
from pipeline.labelling.tally import RejectTally, StartedJob, Tally
from pipeline.metrics import repeated
from pipeline.reuse.known_images import KnownImages
from pipeline.settings.labelling import full_labelling
from pipeline.sources.folder_metadata import describe_shards
from pipeline.sources.listing import find_source, source_name
from pipeline.sources.parquet_reader import check_columns
from pipeline.sources.shard import Shard
from pipeline.storage.model_cache import pin_model
from pipeline.store.lists import RunLists
from pipeline.store.lock import held_lock
from pipeline.store.run import Run
from pipeline.store.store import Store, check_run_name
from pipeline.text import conceal
from schemas import LABELS, LABELS_OF_VIEWS, REJECTED, JobRecord

_LOG = logging.getLogger(__name__)


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
        self._is_stopped = False
        """Whether the limit of time has ended the labelling."""
        self._failures: dict[str, str] = {}
        """Why shards cannot be read, by their names."""

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
            job = self._open(held)
            former = job.run.read_jobs()
            self.skipped, self.n_skipped_before = job.source.skipped, former[-1].n_skipped if former else 0
            self.progress.begin(COMPARING)
            plan = self.shard_plan = self._assignment.plan(job).with_columns(self.request.columns)
            if plan.pending and job.record.folder_buckets:
                pending, notes = describe_shards(job.source.root, plan.pending)
                plan = self.shard_plan = replace(plan, pending=pending)
                self.notes += notes
            job = replace(job, pool=self._fit_pool(job, plan, former))
            make_record = partial(self._tally.job_record, self._started_job(job, plan), self.progress)
            if plan.pending:
                self.notes += notes_of_former_rule(job)
            pending = self._open_reuse(job, plan.pending)
            if pending or plan.lists.shards:
                with _recorded(job.run, make_record):
                    starting = LOADING_MODEL if job.pool.in_process else STARTING_RAY
                    self.progress.begin(starting, len(pending) + len(plan.lists.shards))
                    if not job.pool.in_process:
                        held.enter_context(joined_ray(self.request.address, self.request.verbose))
                    if job.pool.batch_size == TO_BE_FOUND:
                        job = replace(job, pool=self._find_batch_size(job))
                        # Before any image: a job that goes on with this one's run has to label in the same batches.
                        job.run.write_job(make_record("running", ""))
                    with _said_how_to_go_on():
                        if pending:
                            self._label(job, plan, pending)
                        if plan.lists.shards and not self._is_stopped:
                            self._add_lists(job, plan.lists)
                        self._check_failures()
            record = make_record("done")
            job.run.write_job(record)
            self.notes += notes_of_job(record, self.request.settings.limit)
            limit = self.request.time_limit
            if limit is None or not self._is_stopped:
                return LabelOutcome(record, self.notes, job.source.skipped)
            n_left = len(pending) + len(plan.lists.shards) - self.progress.n_shards_done
            self.notes.append(
                f"the limit of time ended the job ({limit.alarm}); {n_left:,} shards are left, and the same command "
                "goes on"
            )
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
            settings=replace(request.settings, **{name: made_by[name] for name in ("pixel_rule", "decoding", "views")}),
            pool=pool,
            progress=self.progress,
            lists=request.lists,
            notes=self.notes,
        )

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

    def _label(self, job: OpenJob, plan: ShardPlan, pending: list[Shard]) -> None:
        metrics, reuse = JobMetrics(job.run.name, self.started_at), self._reuse
        config = replace(self._labeler_config(job), skip_near_duplicates=self._skips(job))
        committer = Committer(
            job.run,
            job.record.fingerprint,
            plan.replaced,
            partial(self._assignment.complete, job),
            partial(self._count_commit, metrics),
            listed_of=plan.lists.listed_of,
            above=plan.lists.above,
            fill=reuse.fill if reuse else None,
            on_end=reuse.end if reuse else None,
        )
        # Of a folder's parts it is known what they hold: all of them are one wave.
        limit = self.request.settings.limit if any(shard.is_file for shard in pending) else 0
        with contextlib.closing(reuse) if reuse else contextlib.nullcontext():
            self._run_waves(job, pending, replace(config, makes_hashes=not reuse), committer, metrics, limit, reuse)

    def _add_lists(self, job: OpenJob, plan: ListPlan) -> None:
        """Scores lists of names for shards that are labelled already."""
        metrics, n_left = JobMetrics(job.run.name, self.started_at), [0]

        def count_left(n_images: int) -> None:
            n_left[0] += n_images

        committer = ListCommitter(
            job.run, job.record.fingerprint, plan, count_left, partial(self._count_commit, metrics, adds_lists=True)
        )
        config = replace(self._labeler_config(job), samples_labels=False)
        self._run_waves(job, plan.shards, config, committer, metrics, self.request.settings.limit)
        if n_left[0]:
            reason = "are gone, others now, or over a limit of this job, and got no scores for the names"
            job.notes.append(f"{n_left[0]:,} labelled images {reason}")

    def _run_waves(
        self,
        job: OpenJob,
        shards: list[Shard],
        config: LabelerConfig,
        committer: Committer,
        metrics: JobMetrics,
        limit: int,
        reuse: Reuse | None = None,
    ) -> None:
        """Reads and labels shards until so many images are done (0: all), and commits each as soon as it is whole."""
        settings = self.request.settings
        place = PlaceOfDecoding(settings.place_of_decoding, job.pool, has_small_views="hub" not in job.record.labelling)
        self.progress.begin(LOADING_MODEL if job.pool.in_process else STARTING_WORKERS)

        def cut(shards: list[Shard]) -> Iterator[list[Shard]]:
            return cut_waves(shards, limit, lambda: self._tally.n_images_done, most=place.most_shards)

        waves = self._placed(reuse.waves(shards, cut) if reuse else ((wave, None) for wave in cut(shards)), place)
        with (
            repeated(lambda: metrics.show(self.progress.snapshot(), committer.n_committing)),
            open_labelers(job.pool, config, self.request.labeler_class, settings) as stream,
        ):
            # How large the next wave of a limited job is, its commits tell.
            for together in ([wave] for wave in waves) if limit else [waves]:
                # Loading the model may have taken all of the time.
                if self._is_out_of_time():
                    break
                self._label_waves(job, together, stream, committer, place, metrics)

    def _placed(
        self, waves: Iterable[tuple[list[Shard], KnownImages | None]], place: PlaceOfDecoding
    ) -> Iterator[Wave]:
        for shards, known in waves:
            self.progress.decoding = chosen = place.choose()
            yield Wave(shards, chosen.place, known)

    def _label_waves(
        self,
        job: OpenJob,
        waves: Iterable[Wave],
        stream: Stream,
        committer: Committer,
        place: PlaceOfDecoding,
        metrics: JobMetrics,
    ) -> None:
        assembler = ShardAssembler(
            job.record.images_schema,
            LABELS_OF_VIEWS if job.record.tells_views else LABELS,
        )
        n_shards = [0]

        def counted() -> Iterator[Wave]:
            for wave in waves:
                n_shards[0] += len(wave.shards)
                yield wave

        # Closed at once where the job is stopped: a Ray that others use too must not go on working for nobody.
        with contextlib.closing(stream(counted())) as rows, self._waiting_ends_with_errors():
            n_whole = committer.commit_all(self._assembled(assembler, place.watch(rows), metrics))
        self._failures |= assembler.failures
        if not self._is_stopped and (n_lost := n_shards[0] - n_whole - len(assembler.failures)) > 0:
            missing = f"{n_lost} of {n_shards[0]} shards came back incomplete"
            raise TagstreamError(f"{missing}; run the command again, it labels them anew")

    @contextlib.contextmanager
    def _waiting_ends_with_errors(self) -> Iterator[None]:
        """Nobody goes on waiting for labels to reuse where what is to commit them fails."""
        try:
            yield
        except BaseException:
            if self._reuse is not None:
                self._reuse.close()
            raise

    def _check_failures(self) -> None:
        """Raises StorageError where shards could not be read, now that the others are done."""
        if self._failures:
            first = next(iter(self._failures.values()))
            n_open = len(self._failures)
            raise StorageError(first if n_open == 1 else f"{n_open} shards are left open, the first: {first}")

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

    def _assembled(
        self, assembler: ShardAssembler, arriving: Iterable[pa.Table], metrics: JobMetrics
    ) -> Iterator[list[WholeShard]]:
        """The shards that became whole with each table of rows, often none. Counts the rows. Ends at the time limit."""
        for rows in arriving:
            if self._is_out_of_time():
                return
            table = assembler.without_failed(rows)
            if self._reuse is not None and assembler.failures:
                self._reuse.leave(*assembler.failures)
            if not table.num_rows:
                yield []
                continue
            self._assignment.on_rows(table)
            n_rejected = pc.sum(pc.equal(table.column("status"), REJECTED)).as_py()
            self.progress.add_rows(table.num_rows, n_rejected, *count_marked(table))
            metrics.count_rows(table)
            yield assembler.add(table)

    def _is_out_of_time(self) -> bool:
        """Whether the limit of time ends the labelling. Where it does, it stays so, and nobody waits for labels."""
        limit = self.request.time_limit
        if limit is not None and limit.is_over(self.elapsed_s):
            self._is_stopped = True
            if self._reuse is not None:
                self._reuse.close()
        return self._is_stopped

    def _count_commit(self, metrics: JobMetrics, commit: Commit, adds_lists: bool = False) -> None:
        shard = commit.shard
        metrics.count_commit(commit.seconds)
        self._tally.add(commit, adds_lists=adds_lists)
        if self._reuse is not None and not adds_lists:
            self._reuse.add(shard)
        self.progress.add_shard(shard.images.num_rows)
        kept = "left as it was, since another job committed it or its source changed"
        done = "committed" if not adds_lists else "has scores for the names"
        result = done if commit.is_written else kept
        counts = {"n_images": shard.images.num_rows, "n_labelled": shard.n_labelled}
        _LOG.info("shard %s %s", shard.name, result, extra={"fields": {"shard": shard.name, **counts}})


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
