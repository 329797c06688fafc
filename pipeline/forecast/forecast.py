"""From what a sample took to what the whole source will take."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from pipeline.dataflow.rows import JOB_STAGES
from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate
from pipeline.forecast.estimate import ratio_spread, within
from pipeline.forecast.extent import Extent
from pipeline.labelling.pending import ShardPlan
from schemas import RunRecord

_MAX_BLOCKS, _MIN_BLOCKS = 10, 3
# Stages that more actors do not make faster.
_BESIDE_ACTORS = ("read", "write")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """Who works at a job: how many at each stage can work at the same time."""

    n_actors: int
    gpus_per_actor: float
    device: str
    batch_size: int
    n_readers: int
    """CPUs that no actor reserves."""
    n_writers: int

    def at(self, stage: str) -> int:
        return {"read": self.n_readers, "write": self.n_writers}.get(stage, self.n_actors)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleCosts:
    """What labelling a sample took."""

    n_images: int
    n_rejected: int
    start_up_s: float
    """From the job's start to its first result: listing, Ray, the model."""
    arrivals: Sequence[tuple[float, int]]
    """When results came back, in seconds, and how many images each time."""
    shard_costs: Sequence[tuple[int, float]]
    """Images of each shard, and the seconds that actors spent on them."""
    seconds_an_image: dict[str, float]
    """By stage, busy seconds of one worker, once results come in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSizes:
    """Bytes of a store's files: for each shard, and for each image beside that."""

    bytes_a_shard: float
    label_bytes_an_image: float
    image_bytes_an_image: float
    compacted_label_bytes_an_image: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StageForecast:
    """A stage's part in the work."""

    stage: str
    seconds_an_image: float
    """Busy seconds of one worker."""
    share: float
    """Of the busy seconds of all stages."""
    workers: int
    images_per_s: float
    """What these workers manage, if nothing else holds them up; no less than they were seen to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a job over a whole source will take."""

    run: str
    source: str
    fingerprint: str
    n_shards: int
    source_bytes: int
    n_images: Estimate
    start_up_s: float
    images_per_s: Estimate
    seconds: Estimate
    """Wall clock of the job, as its record counts it."""
    usd: Estimate | None
    output_bytes: Estimate
    compacted_bytes: Estimate
    output: OutputSizes
    stages: list[StageForecast]
    bottleneck: str
    workers: Workers
    n_sampled: int
    n_shards_sampled: int
    n_rejected: int
    notes: list[str]

    def seconds_for(self, n_bytes: int, n_images_at_most: int = 0) -> float:
        """Seconds of a job over a part of the source.

        Args:
            n_bytes: of the shards that it labels.
            n_images_at_most: where it stops earlier; 0 is never.
        """
        n_images = self.n_images.value * min(1.0, n_bytes / self.source_bytes if self.source_bytes else 1.0)
        if n_images_at_most:
            n_images = min(n_images, n_images_at_most)
        return self.start_up_s + n_images / self.images_per_s.value

    def seconds_of(self, run: RunRecord, plan: ShardPlan, limit: int) -> float:
        """Seconds of the job that labels the pending shards of a run.

        Args:
            limit: the number of images at which the job stops; 0 is for no limit.

        Raises TagstreamError where this is the forecast of another source or of other settings.
        """
        if (self.source, self.fingerprint) != (run.source, run.fingerprint):
            raise TagstreamError(
                f"the prediction is for {self.source} and settings {self.fingerprint}, this job labels "
                f"{run.source} with {run.fingerprint}; run `tagstream plan` for it, or leave --plan out"
            )
        sizes = [shard.size for shard in plan.pending]
        if None not in sizes:
            return self.seconds_for(sum(size or 0 for size in sizes), limit)
        # Web servers list no sizes.
        return self.seconds_for(round(self.source_bytes * len(sizes) / max(1, self.n_shards)), limit)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: str) -> Self:
        """Reads what `to_json` made. Raises TagstreamError for any other file."""
        try:
            values = json.loads(Path(path).read_text("utf-8"))
            for name in ("n_images", "images_per_s", "seconds", "output_bytes", "compacted_bytes", "usd"):
                values[name] = values[name] and Estimate(**values[name])
            stages = [StageForecast(**stage) for stage in values.pop("stages")]
            output, workers = OutputSizes(**values.pop("output")), Workers(**values.pop("workers"))
            return cls(stages=stages, output=output, workers=workers, **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TagstreamError(
                f"{path} is no forecast ({error}); expected what `tagstream plan --format json` prints"
            ) from error


def forecast(
    extent: Extent,
    costs: SampleCosts,
    output: OutputSizes,
    workers: Workers,
    *,
    n_gpus: int = 0,
    usd_per_hour: float | None = None,
    **described: str,
) -> Forecast:
    """Predicts a job over the whole source.

    Args:
        n_gpus: predict for so many, by what one actor does; 0 is for what the sample was labelled with.
        usd_per_hour: of all machines together.
        described: run, source and fingerprint.

    Raises TagstreamError where the sample is too small to tell.
    """
    rate = steady_rate(costs, extent)
    scaled, notes = _scaled(workers, n_gpus)
    wanted = rate.times(scaled.n_actors / workers.n_actors)
    stages = _stages(costs, scaled, rate, wanted)
    reached, bottleneck = _limited(rate, wanted, stages)
    if reached.value < wanted.value:
        notes.append(f"{bottleneck} does not keep up with {scaled.n_actors} actors")
    labelling = _over_rate(extent.n_images, reached)
    seconds = Estimate(*(costs.start_up_s + part for part in (labelling.value, labelling.low, labelling.high)))
    n_images, per_shard = extent.n_images, output.bytes_a_shard * extent.n_shards
    return Forecast(
        n_shards=extent.n_shards,
        source_bytes=extent.n_bytes,
        n_images=n_images,
        start_up_s=costs.start_up_s,
        images_per_s=reached,
        seconds=seconds,
        usd=None if usd_per_hour is None else seconds.times(usd_per_hour / 3600),
        output_bytes=_plus(n_images.times(output.label_bytes_an_image + output.image_bytes_an_image), per_shard),
        compacted_bytes=n_images.times(output.compacted_label_bytes_an_image + output.image_bytes_an_image),
        output=output,
        stages=stages,
        bottleneck=bottleneck,
        workers=scaled,
        n_sampled=costs.n_images,
        n_shards_sampled=len(extent.heads),
        n_rejected=costs.n_rejected,
        notes=notes,
        **described,
    )


def steady_rate(costs: SampleCosts, extent: Extent) -> Estimate:
    """Images a second once results come in.

    Two kinds of chance: one stretch of work is not as fast as the next (results cut into up to ten stretches of as many
    images), and one shard costs more than another (busy seconds an image of the shards that were drawn).
    """
    n_arrived = [n_images for _, n_images in costs.arrivals]
    check_results(len(n_arrived), extent)
    n_blocks = min(_MAX_BLOCKS, len(n_arrived) - 1)
    # The first result's own work came before it.
    edges = [round(block * (len(n_arrived) - 1) / n_blocks) for block in range(n_blocks + 1)]
    spans = [costs.arrivals[after][0] - costs.arrivals[before][0] for before, after in pairwise(edges)]
    counts = [sum(n_arrived[before + 1 : after + 1]) for before, after in pairwise(edges)]
    by_time = ratio_spread(spans, counts)
    shards = [cost for cost in costs.shard_costs if cost[0]]
    unseen = max(0.0, 1 - len(shards) / extent.n_shards)
    by_shard = ratio_spread([seconds for _, seconds in shards], [n_images for n_images, _ in shards])
    error = math.sqrt(by_time**2 + by_shard**2 * unseen)
    return within(sum(counts) / max(sum(spans), 1e-9), error, n_blocks - 1)


def check_results(n_results: int, extent: Extent) -> None:
    """Raises TagstreamError where a sample that comes back in so many results is too small to tell."""
    if n_results > _MIN_BLOCKS:
        return
    n_images, few = extent.n_sampled, f"too few to predict from; expected {_MIN_BLOCKS + 1} or more"
    if extent.is_whole:
        raise TagstreamError(
            f"the source has only {n_images:,} images, which come back in {n_results} results, {few}: so few are soon "
            "labelled, run `tagstream label` without a plan"
        )
    raise TagstreamError(
        f"a sample of {n_images:,} images comes back in {n_results} results, {few}: ask for a larger --sample"
    )


def check_gpus(n_gpus: int, device: str) -> None:
    """Raises TagstreamError where nothing can be said of so many GPUs from a sample that is labelled on this device."""
    if n_gpus and device != "cuda":
        raise TagstreamError(
            f"--gpus {n_gpus} predicts from what a GPU does, and the sample is labelled on {device}; run plan where "
            "there is a GPU, or leave --gpus out"
        )


def _scaled(workers: Workers, n_gpus: int) -> tuple[Workers, list[str]]:
    if not n_gpus:
        return workers, []
    check_gpus(n_gpus, workers.device)
    n_actors = max(1, int(n_gpus / workers.gpus_per_actor + 1e-9))
    values = {**asdict(workers), "n_actors": n_actors}
    note = (
        f"{n_actors} actors, each as fast as one of the {workers.n_actors} that were measured; reading by the "
        f"{workers.n_readers} CPUs of now"
    )
    return Workers(**values), [note]


def _limited(measured: Estimate, wanted: Estimate, stages: list[StageForecast]) -> tuple[Estimate, str]:
    """The rate that is wanted as far as reading and writing keep up with it, and the stage that is the bottleneck."""
    limit = max((stage for stage in stages if stage.stage in _BESIDE_ACTORS), key=_load)
    if limit.images_per_s < wanted.value:
        return measured.times(limit.images_per_s / measured.value), limit.stage
    return wanted, max(stages, key=_load).stage


def _load(stage: StageForecast) -> float:
    """Seconds that an image takes of all workers of a stage."""
    return stage.seconds_an_image / stage.workers


def _stages(costs: SampleCosts, workers: Workers, measured: Estimate, wanted: Estimate) -> list[StageForecast]:
    seconds = {stage: max(costs.seconds_an_image.get(stage, 0.0), 1e-9) for stage in JOB_STAGES}
    return [
        StageForecast(
            stage=stage,
            seconds_an_image=seconds[stage],
            share=seconds[stage] / sum(seconds.values()),
            workers=workers.at(stage),
            # A part of the seconds lies before the first result, and decoding is of more than one batch at a time.
            images_per_s=max(
                workers.at(stage) / seconds[stage], (measured if stage in _BESIDE_ACTORS else wanted).value
            ),
        )
        for stage in JOB_STAGES
    ]


def _over_rate(n_images: Estimate, rate: Estimate) -> Estimate:
    """Images by images a second; both errors together, as they are of different causes."""
    reach = math.hypot(n_images.high / n_images.value - 1, rate.high / rate.value - 1)
    value = n_images.value / rate.value
    return Estimate(value, value / (1 + reach), value * (1 + reach))


def _plus(estimate: Estimate, fixed: float) -> Estimate:
    return Estimate(estimate.value + fixed, estimate.low + fixed, estimate.high + fixed)
