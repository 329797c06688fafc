"""Labels a sample into a store that is thrown away, and measures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.actor.rows import READER, STAGES
from pipeline.cluster.nodes import Node, available_nodes
from pipeline.cluster.pool import FreeCpus, PoolPlan
from pipeline.cluster.small_jobs import fit_small_job
from pipeline.forecast.extent import Extent, measure_extent
from pipeline.forecast.forecast import Forecast, OutputSizes, forecast
from pipeline.forecast.pace import SampleCosts, Workers, check_gpus, check_results
from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.assignment import Assignment, OpenJob
from pipeline.labelling.committing import count_threads
from pipeline.labelling.job import LabelJob
from pipeline.labelling.pending import ShardPlan, run_shards
from pipeline.labelling.request import LabelRequest
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.settings.labelling import full_labelling
from pipeline.sources.contents import describe_skipped
from pipeline.sources.shard import add_sizes
from pipeline.store.ownership import CommittedShard
from pipeline.store.run import Run
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from schemas import JobRecord, RunRecord

_SUMMED = (*(f"{name}_s" for name in (*STAGES, READER)), "n_bytes", "view_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastRequest:
    """One invocation of `tagstream plan`."""

    label: LabelRequest
    """The job to predict. Nothing is written to its store, and its limit does not count."""
    n_images: int = 2000
    """Number of images to label for the forecast, roughly."""
    seed: int = 0
    """Seed of the draw of shards."""
    n_gpus: int = 0
    """Number of GPUs to predict for; 0 is for the workers that label the sample."""
    usd_per_hour: float | None = None
    """Price of all machines together; None leaves the cost out."""


@dataclass(frozen=True, slots=True)
class Result:
    """A table of rows that came back from the pool."""

    arrived: float
    """When it came, in seconds of this process's clock."""
    n_images: int
    """Number of its rows, rejected images included."""
    totals: dict[str, float]
    """Of its images, by the name of their column: seconds of work, bytes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a job labels in order to predict another."""

    record: RunRecord
    """The record of the run in the temporary store: the one that the job to predict would make."""
    extent: Extent
    """The size of the whole source, and the beginnings of shards that are labelled."""
    workers: Workers
    """The workers that label the sample."""
    free: FreeCpus
    """The CPUs that read it."""
    decode_in: str
    """Where the job to predict decodes: actor, read or auto."""
    looking_s: float
    """Seconds that looking into shards took."""


class SampleAssignment(Assignment):
    """The beginnings of shards that are drawn at random. Keeps what labelling them costs.

    Args:
        address: Ray cluster whose CPUs read; None is this machine.
        n_images: how many images to label, roughly.
        seed: seed of the draw.
        n_gpus: how many GPUs to predict for; 0 is for those that label the sample.
    """

    def __init__(self, address: str | None, n_images: int, seed: int, n_gpus: int = 0) -> None:
        self.shards: list[WholeShard] = []
        """The shards as they were committed: threads append to it."""
        self.results: list[Result] = []
        self._address = address
        self._n_images, self._seed, self._n_gpus = n_images, seed, n_gpus
        self._sample: Sample | None = None
        self._n_bytes: int | None = None
        """Size of the whole source; None where its listing does not say."""

    @property
    def sample(self) -> Sample:
        """What is labelled; known once the job has planned."""
        assert self._sample is not None, "the job has not planned yet"
        return self._sample

    def fit_pool(self, pool: PoolPlan) -> PoolPlan:
        """All actors from the start: of a pool that grows it is not known how many worked."""
        check_gpus(self._n_gpus, pool.device)
        return replace(pool, min_actors=pool.n_actors)

    def plan(self, job: OpenJob) -> ShardPlan:
        """The beginnings of some shards."""
        job.progress.begin("looking into shards")
        started = time.perf_counter()
        shards = run_shards(job.run, job.source, job.record.folder_buckets, job.run.committed())
        extent = measure_extent(shards, self._n_images, self._seed)
        looking_s = time.perf_counter() - started
        self._n_bytes = add_sizes(shards)
        pool = fit_small_job(job.pool, self._n_bytes, self._address, job.settings)
        # There are no more results than batches.
        check_results(sum(-(-head.n_samples // job.pool.batch_size) for head in extent.heads), extent)
        workers = _workers(pool, available_nodes(self._address), count_threads(job.run.filesystem))
        decode_in = "actor" if pool.in_process else job.settings.place_of_decoding
        self._sample = Sample(job.record, extent, workers, job.pool.free, decode_in, looking_s)
        return ShardPlan([head.shard for head in extent.heads], len(shards), [], {})

    def n_bytes(self, plan: ShardPlan) -> int | None:
        """That of the job to predict: its sample is labelled where the job is going to be."""
        return self._n_bytes

    def on_rows(self, rows: pa.Table) -> None:
        """Keeps when a result came, and the work in it."""
        arrived = time.perf_counter()
        totals = {name: pc.sum(rows.column(name)).as_py() or 0.0 for name in _SUMMED}
        self.results.append(Result(arrived, rows.num_rows, totals))

    def complete(self, job: OpenJob, shard: WholeShard, former: CommittedShard | None) -> WholeShard:
        self.shards.append(shard)
        return shard


def sample_costs(
    record: JobRecord,
    results: Sequence[Result],
    shards: Sequence[WholeShard],
    looking_s: float,
    reader_cpus: int = 0,
) -> SampleCosts:
    """What labelling a sample took.

    Args:
        record: the job's last record.
        results: what came back from the pool, in order.
        shards: the shards that were committed.
        looking_s: seconds that looking into shards took. They are no part of a labelling job.
        reader_cpus: CPUs of a task that reads and decodes a shard; 0 where none decodes.
    """
    # The first result's work came before it, with all that a model does only once: it counts for neither the rate
    # nor the stages.
    later = results[1:]
    n_later = max(1, sum(result.n_images for result in later))
    of_image = {name: sum(result.totals[name] for result in later) / n_later for name in _SUMMED}
    return SampleCosts(
        n_images=record.n_images,
        n_rejected=record.n_rejected,
        start_up_s=record.seconds - record.labelling_s - looking_s,
        arrivals=[(result.arrived, result.n_images) for result in results],
        shard_costs=[(shard.images.num_rows, shard.seconds["decode"] + shard.seconds["infer"]) for shard in shards],
        seconds_an_image={
            **{stage: of_image[f"{stage}_s"] for stage in STAGES},
            "write": record.seconds_by_stage["write"] / max(1, record.n_images),
        },
        reader_s=of_image["reader_s"] * reader_cpus,
        n_bytes=of_image["n_bytes"],
        view_bytes=of_image["view_bytes"],
    )


def _workers(pool: PoolPlan, nodes: list[Node], n_writers: int) -> Workers:
    n_cpus = sum(node.n_cpus for node in nodes)
    return Workers(
        n_actors=pool.n_actors,
        gpus_per_actor=pool.gpus_per_actor,
        device=pool.device,
        batch_size=pool.batch_size,
        n_readers=max(1, n_cpus - pool.n_actors * pool.cpus_per_actor),
        n_writers=n_writers,
        cpus_per_actor=pool.cpus_per_actor,
        decode_threads=pool.n_threads,
        n_elsewhere=pool.free.n_elsewhere,
    )


class SampleJob(LabelJob):
    """Labels a sample of a source, as any labelling job does."""

    def __init__(self, request: LabelRequest, assignment: SampleAssignment) -> None:
        super().__init__(request, assignment)
        # Its metrics are under the run's name, and are not to be added to those of the run's jobs.
        self.started_at += " plan"


class ForecastJob:
    """Predicts a labelling job."""

    def __init__(self, request: ForecastRequest) -> None:
        self.request = request
        self._folder = tempfile.TemporaryDirectory(prefix="tagstream-plan-")
        store = str(Path(self._folder.name) / "store")
        settings = replace(request.label.settings, limit=0)
        sample = replace(request.label, store=store, settings=settings)
        self._assignment = SampleAssignment(sample.address, request.n_images, request.seed, request.n_gpus)
        self._job = SampleJob(sample, self._assignment)
        self.progress = self._job.progress
        self.notes: list[str] = []

    def run(self) -> Forecast:
        """Labels the sample and predicts. Raises TagstreamError where it cannot be done."""
        with self._folder:
            outcome = self._job.run()
            left_out = [f"left out of the source: {describe_skipped(outcome.skipped)}"] if outcome.skipped else []
            self.notes = [*outcome.notes, *left_out]
            self.progress.begin("measuring what was written")
            assignment, request = self._assignment, self.request
            sample = assignment.sample
            rows_a_shard = sample.extent.n_images.value / sample.extent.n_shards
            sized = Store(str(Path(self._folder.name) / "sized"))
            place = outcome.record.workers["decode_in"]
            n_cpus = sample.free.read_tasks(len(sample.extent.heads), decode=True).n_cpus if place == "read" else 0
            return forecast(
                sample.extent,
                sample_costs(outcome.record, assignment.results, assignment.shards, sample.looking_s, n_cpus),
                measure_output(assignment.shards, rows_a_shard, sized, sample.record),
                replace(sample.workers, decode_in=place),
                n_gpus=request.n_gpus,
                decode_in=sample.decode_in,
                decoding=full_labelling(sample.record.labelling)["decoding"],
                usd_per_hour=request.usd_per_hour,
                n_image_tokens=self._job.n_image_tokens,
                n_reused=outcome.record.n_reused,
                n_near_duplicates=outcome.record.n_near_duplicates,
                run=sample.record.run,
                source=sample.record.source,
                fingerprint=sample.record.fingerprint,
            )


def measure_output(shards: list[WholeShard], rows_a_shard: float, store: Store, record: RunRecord) -> OutputSizes:
    """Sizes of what a store keeps of these images.

    Args:
        rows_a_shard: mean number of images of the source's shards. In a larger shard an image takes fewer bytes, so
            the shard that is measured has about as many images, if the sample does.
    """
    run = store.run(store.create_run(record).run)
    n_shards = 1 + next(
        (number for number, rows in enumerate(accumulate(_n_rows(shards))) if rows >= rows_a_shard), len(shards)
    )
    whole, rest = shards[:n_shards], shards[n_shards:]
    _commit_as_one(run, "empty", [_emptied(shards[0])])
    empty_labels, empty_images = _sizes(run)
    _commit_as_one(run, "whole", whole)
    both_labels, both_images = _sizes(run)
    if rest:
        _commit_as_one(run, "rest", rest)
    compacted = compact_run(run, read_vocabulary(None), lambda done, of: None)
    n_images = sum(_n_rows(whole))
    return OutputSizes(
        bytes_a_shard=empty_labels + empty_images,
        label_bytes_an_image=(both_labels - 2 * empty_labels) / n_images,
        image_bytes_an_image=(both_images - 2 * empty_images) / n_images,
        compacted_label_bytes_an_image=max(0, compacted.label_bytes_after - empty_labels) / sum(_n_rows(shards)),
    )


def _n_rows(shards: list[WholeShard]) -> list[int]:
    return [shard.images.num_rows for shard in shards]


def _emptied(shard: WholeShard) -> WholeShard:
    return replace(shard, images=shard.images.slice(0, 0), labels=shard.labels.slice(0, 0))


def _commit_as_one(run: Run, name: str, shards: list[WholeShard]) -> None:
    images = pa.concat_tables([shard.images for shard in shards])
    run.commit(name, images, pa.concat_tables([shard.labels for shard in shards]), {})


def _sizes(run: Run) -> tuple[int, int]:
    listings = (run.list_labels(), run.list_images())
    labels, images = (sum(info["size"] for info in listing.values()) for listing in listings)
    return labels, images
