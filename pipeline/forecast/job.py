"""Labels a sample into a store that is thrown away, and measures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cluster.nodes import available_nodes
from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.rows import STAGES
from pipeline.forecast.extent import Extent, measure_extent
from pipeline.forecast.forecast import (
    Forecast,
    OutputSizes,
    SampleCosts,
    Workers,
    check_gpus,
    check_results,
    forecast,
)
from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.job import COMMIT_THREADS, LabelJob
from pipeline.labelling.pending import ShardPlan, run_shards
from pipeline.labelling.request import LabelRequest
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.sources.shard import Source
from pipeline.store.ownership import CommittedShard
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from schemas import JobRecord, RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastRequest:
    """One invocation of `tagstream plan`."""

    label: LabelRequest
    """The job to predict; nothing is written to its store."""
    n_images: int = 2000
    seed: int = 0
    n_gpus: int = 0
    usd_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class _Result:
    """What came back from the pool at once."""

    arrived: float
    n_images: int
    seconds: dict[str, float]
    """Of work, by stage."""


class SampleJob(LabelJob):
    """Labels the beginnings of shards that were drawn at random, as any labelling job does."""

    extent: Extent
    workers: Workers

    def __init__(self, request: LabelRequest, n_images: int, seed: int, n_gpus: int = 0) -> None:
        super().__init__(request)
        # Its metrics are under the run's name, and are not to be added to those of the run's jobs.
        self.started_at += " plan"
        self._n_gpus = n_gpus
        self._results: list[_Result] = []
        self.shards: list[WholeShard] = []
        self._n_images, self._seed = n_images, seed
        self._looking_s = 0.0

    def plan(self, store: Store, source: Source) -> ShardPlan:
        """The beginnings of some shards."""
        self.progress.begin("looking into shards")
        started = time.perf_counter()
        shards, _ = run_shards(store.run(self.record.run), source, self.record.folder_buckets)
        self.extent = measure_extent(shards, self._n_images, self._seed)
        self._looking_s = time.perf_counter() - started
        # There are no more results than batches.
        check_results(sum(-(-head.n_samples // self.workers.batch_size) for head in self.extent.heads), self.extent)
        return ShardPlan([head.shard for head in self.extent.heads], len(shards), [], {})

    def _commit_all(self, store: Store, plan: ShardPlan, rows: Iterable[pa.Table]) -> int:
        return super()._commit_all(store, plan, self._timed(rows))

    def _timed(self, rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Keeps when each result came, and what it took."""
        for table in rows:
            seconds = {stage: pc.sum(table.column(f"{stage}_s")).as_py() for stage in STAGES}
            self._results.append(_Result(time.perf_counter(), table.num_rows, seconds))
            yield table

    def completed(self, store: Store, shard: WholeShard, replaces: CommittedShard | None) -> WholeShard:
        self.shards.append(shard)
        return shard

    def costs(self, record: JobRecord) -> SampleCosts:
        """What the job took, once it is done."""
        # The first result's work came before it, with all that a model does only once: it counts for neither the rate
        # nor the stages.
        later = self._results[1:]
        n_later = max(1, sum(result.n_images for result in later))
        return SampleCosts(
            n_images=record.n_images,
            n_rejected=record.n_rejected,
            start_up_s=record.seconds - record.labelling_s - self._looking_s,
            arrivals=[(result.arrived, result.n_images) for result in self._results],
            shard_costs=[
                (shard.images.num_rows, shard.seconds["decode"] + shard.seconds["infer"]) for shard in self.shards
            ],
            seconds_an_image={
                **{stage: sum(result.seconds[stage] for result in later) / n_later for stage in STAGES},
                "write": record.seconds_by_stage["write"] / max(1, record.n_images),
            },
        )

    def _plan_pool(self) -> PoolPlan:
        # All of them at once: of a pool that grows it is not known how many worked.
        pool = super()._plan_pool()
        check_gpus(self._n_gpus, pool.device)
        pool = replace(pool, min_actors=pool.n_actors)
        n_cpus = sum(node.n_cpus for node in available_nodes(self.request.address))
        self.workers = Workers(
            n_actors=pool.n_actors,
            gpus_per_actor=pool.gpus_per_actor,
            device=pool.device,
            batch_size=pool.batch_size,
            n_readers=max(1, n_cpus - pool.n_actors * pool.cpus_per_actor),
            n_writers=COMMIT_THREADS,
        )
        return pool


class ForecastJob:
    """Predicts a labelling job."""

    def __init__(self, request: ForecastRequest) -> None:
        self.request = request
        self._folder = tempfile.TemporaryDirectory(prefix="tagstream-plan-")
        store = str(Path(self._folder.name) / "store")
        settings = replace(request.label.settings, limit=0)
        sample = replace(request.label, store=store, settings=settings)
        self._job = SampleJob(sample, request.n_images, request.seed, request.n_gpus)
        self.progress = self._job.progress
        self.notes: list[str] = []

    def run(self) -> Forecast:
        """Labels the sample and predicts. Raises TagstreamError where it cannot be done."""
        with self._folder:
            outcome = self._job.run()
            self.notes = outcome.notes
            record = self._job.record
            self.progress.begin("measuring what was written")
            n_rows = self._job.extent.n_images.value / self._job.extent.n_shards
            sized = Store(str(Path(self._folder.name) / "sized"))
            output = measure_output(self._job.shards, n_rows, sized, record)
            return forecast(
                self._job.extent,
                self._job.costs(outcome.record),
                output,
                self._job.workers,
                n_gpus=self.request.n_gpus,
                usd_per_hour=self.request.usd_per_hour,
                run=record.run,
                source=record.source,
                fingerprint=record.fingerprint,
            )


def measure_output(shards: list[WholeShard], rows_a_shard: float, store: Store, record: RunRecord) -> OutputSizes:
    """Sizes of what a store keeps of these images.

    Args:
        rows_a_shard: what shards have on average. The larger a shard, the less an image takes of it, so one is measured
            that has about as many, if there are as many.
    """
    run = store.create_run(record).run
    n_shards = 1 + next(
        (place for place, rows in enumerate(accumulate(_n_rows(shards))) if rows >= rows_a_shard), len(shards)
    )
    whole, rest = shards[:n_shards], shards[n_shards:]
    _commit_as_one(store, run, "empty", [_emptied(shards[0])])
    empty_labels, empty_images = _sizes(store, run)
    _commit_as_one(store, run, "whole", whole)
    both_labels, both_images = _sizes(store, run)
    if rest:
        _commit_as_one(store, run, "rest", rest)
    compacted = compact_run(store.run(run), read_vocabulary(None), lambda done, of: None)
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


def _commit_as_one(store: Store, run: str, name: str, shards: list[WholeShard]) -> None:
    images = pa.concat_tables([shard.images for shard in shards])
    store.run(run).commit(name, images, pa.concat_tables([shard.labels for shard in shards]), {})


def _sizes(store: Store, run: str) -> tuple[int, int]:
    listings = (store.run(run).list_labels(), store.run(run).list_images())
    labels, images = (sum(info["size"] for info in listing.values()) for listing in listings)
    return labels, images
