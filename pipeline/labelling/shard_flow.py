"""Shards on their way through a job: labelled wave by wave, each committed as soon as it is whole."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.actor.labeler import LabelerConfig
from pipeline.dataflow.decode_place import PlaceOfDecoding
from pipeline.dataflow.streaming import open_labelers
from pipeline.dataflow.waves import Stream, Wave
from pipeline.errors import StorageError, TagstreamError
from pipeline.labelling.assembly import ShardAssembler, WholeShard, count_marked
from pipeline.labelling.assignment import Assignment, OpenJob
from pipeline.labelling.committing import Commit, Committer
from pipeline.labelling.job_metrics import JobMetrics
from pipeline.labelling.listing import ListCommitter, ListPlan
from pipeline.labelling.pending import ShardPlan, cut_waves
from pipeline.labelling.progress import LOADING_MODEL, STARTING_WORKERS
from pipeline.labelling.request import LabelRequest
from pipeline.labelling.reusing import Reuse
from pipeline.labelling.tally import Tally
from pipeline.metrics import repeated
from pipeline.reuse.known_images import KnownImages
from pipeline.sources.shard import Shard
from schemas import LABELS, LABELS_OF_VIEWS, REJECTED

_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class ShardFlow:
    """Labels shards of an open job and commits them."""

    job: OpenJob
    request: LabelRequest
    assignment: Assignment
    config: LabelerConfig
    """What the labelling actors are built from."""
    tally: Tally
    """Counts what is committed."""
    reuse: Reuse | None
    """What gives images the labels of others; None where labels are not reused."""
    is_stopped: bool = field(default=False, init=False)
    """Whether the limit of time has ended the labelling."""
    _failures: dict[str, str] = field(default_factory=dict, init=False)
    """Why shards cannot be read, by their names."""
    _metrics: JobMetrics = field(init=False)

    def __post_init__(self) -> None:
        self._metrics = JobMetrics(self.config.run, self.config.job)

    def label(self, plan: ShardPlan, pending: list[Shard]) -> None:
        """Labels shards of a plan.

        Raises TagstreamError where shards come back incomplete or cannot be committed, or too many cannot be read.
        """
        job, reuse = self.job, self.reuse
        committer = Committer(
            job.run,
            job.record.fingerprint,
            plan.replaced,
            partial(self.assignment.complete, job),
            self._count_commit,
            listed_of=plan.lists.listed_of,
            above=plan.lists.above,
            fill=reuse.fill if reuse else None,
            on_end=reuse.end if reuse else None,
        )
        # Of a folder's parts it is known what they hold: all of them are one wave.
        limit = self.request.settings.limit if any(shard.is_file for shard in pending) else 0
        with contextlib.closing(reuse) if reuse else contextlib.nullcontext():
            self._run_waves(pending, replace(self.config, makes_hashes=not reuse), committer, limit, reuse)

    def add_lists(self, plan: ListPlan) -> None:
        """Scores lists of names for shards that are labelled already. Raises TagstreamError as `label` does."""
        job, n_left = self.job, [0]

        def count_left(n_images: int) -> None:
            n_left[0] += n_images

        count_commit = partial(self._count_commit, adds_lists=True)
        committer = ListCommitter(job.run, job.record.fingerprint, plan, count_left, count_commit)
        config = replace(self.config, samples_labels=False, skip_near_duplicates=False)
        self._run_waves(plan.shards, config, committer, self.request.settings.limit)
        if n_left[0]:
            reason = "are gone, others now, or over a limit of this job, and got no scores for the names"
            job.notes.append(f"{n_left[0]:,} labelled images {reason}")

    def check_failures(self) -> None:
        """Raises StorageError where shards could not be read, now that the others are done."""
        if self._failures:
            first = next(iter(self._failures.values()))
            n_open = len(self._failures)
            raise StorageError(first if n_open == 1 else f"{n_open} shards are left open, the first: {first}")

    def _run_waves(
        self, shards: list[Shard], config: LabelerConfig, committer: Committer, limit: int, reuse: Reuse | None = None
    ) -> None:
        """Reads and labels shards until so many images are done (0: all), and commits each as soon as it is whole."""
        job, settings = self.job, self.request.settings
        place = PlaceOfDecoding(settings.place_of_decoding, job.pool, has_small_views="hub" not in job.record.labelling)
        job.progress.begin(LOADING_MODEL if job.pool.in_process else STARTING_WORKERS)

        def cut(shards: list[Shard]) -> Iterator[list[Shard]]:
            return cut_waves(shards, limit, lambda: self.tally.n_images_done, most=place.most_shards)

        waves = self._placed(reuse.waves(shards, cut) if reuse else ((wave, None) for wave in cut(shards)), place)
        with (
            repeated(lambda: self._metrics.show(job.progress.snapshot(), committer.n_committing)),
            open_labelers(job.pool, config, self.request.labeler_class, settings) as stream,
        ):
            # How large the next wave of a limited job is, its commits tell.
            for together in ([wave] for wave in waves) if limit else [waves]:
                # Loading the model may have taken all of the time.
                if self._is_out_of_time():
                    break
                self._label_waves(together, stream, committer, place)

    def _placed(
        self, waves: Iterable[tuple[list[Shard], KnownImages | None]], place: PlaceOfDecoding
    ) -> Iterator[Wave]:
        for shards, known in waves:
            self.job.progress.decoding = chosen = place.choose()
            yield Wave(shards, chosen.place, known)

    def _label_waves(self, waves: Iterable[Wave], stream: Stream, committer: Committer, place: PlaceOfDecoding) -> None:
        record, n_shards = self.job.record, [0]
        assembler = ShardAssembler(record.images_schema, LABELS_OF_VIEWS if record.tells_views else LABELS)

        def counted() -> Iterator[Wave]:
            for wave in waves:
                n_shards[0] += len(wave.shards)
                yield wave

        # Closed at once where the job is stopped: a Ray that others use too must not go on working for nobody.
        with contextlib.closing(stream(counted())) as rows, self._waiting_ends_with_errors():
            n_whole = committer.commit_all(self._assembled(assembler, place.watch(rows)))
        self._failures |= assembler.failures
        if not self.is_stopped and (n_lost := n_shards[0] - n_whole - len(assembler.failures)) > 0:
            missing = f"{n_lost} of {n_shards[0]} shards came back incomplete"
            raise TagstreamError(f"{missing}; run the command again, it labels them anew")

    @contextlib.contextmanager
    def _waiting_ends_with_errors(self) -> Iterator[None]:
        """Nobody goes on waiting for labels to reuse where what is to commit them fails."""
        try:
            yield
        except BaseException:
            if self.reuse is not None:
                self.reuse.close()
            raise

    def _assembled(self, assembler: ShardAssembler, arriving: Iterable[pa.Table]) -> Iterator[list[WholeShard]]:
        """The shards that became whole with each table of rows, often none. Counts the rows. Ends at the time limit."""
        for rows in arriving:
            if self._is_out_of_time():
                return
            table = assembler.without_failed(rows)
            if self.reuse is not None and assembler.failures:
                self.reuse.leave(*assembler.failures)
            if not table.num_rows:
                yield []
                continue
            self.assignment.on_rows(table)
            n_rejected = pc.sum(pc.equal(table.column("status"), REJECTED)).as_py()
            self.job.progress.add_rows(table.num_rows, n_rejected, *count_marked(table))
            self._metrics.count_rows(table)
            yield assembler.add(table)

    def _is_out_of_time(self) -> bool:
        """Whether the limit of time ends the labelling. Where it does, it stays so, and nobody waits for labels."""
        limit = self.request.time_limit
        if limit is not None and limit.is_over(self.tally.elapsed_s):
            self.is_stopped = True
            if self.reuse is not None:
                self.reuse.close()
        return self.is_stopped

    def _count_commit(self, commit: Commit, adds_lists: bool = False) -> None:
        shard = commit.shard
        self._metrics.count_commit(commit.seconds)
        self.tally.add(commit, adds_lists=adds_lists)
        if self.reuse is not None and not adds_lists:
            self.reuse.add(shard)
        self.job.progress.add_shard(shard.images.num_rows)
        kept = "left as it was, since another job committed it or its source changed"
        done = "committed" if not adds_lists else "has scores for the names"
        result = done if commit.is_written else kept
        counts = {"n_images": shard.images.num_rows, "n_labelled": shard.n_labelled}
        _LOG.info("shard %s %s", shard.name, result, extra={"fields": {"shard": shard.name, **counts}})
