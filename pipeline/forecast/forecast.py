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
from pipeline.forecast.extent import Extent
from pipeline.forecast.intervals import ratio_spread, within
from pipeline.labelling.pending import ShardPlan
from schemas import RunRecord

_MAX_BLOCKS, _MIN_BLOCKS = 10, 3
# Stages that more actors do not make faster.
_BESIDE_ACTORS = ("read", "write")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """How many workers each stage of a job has."""

    n_actors: int
    """Labelling actors: they decode and label."""
    gpus_per_actor: float
    """GPUs of each actor, or its share of one; 0 on CPUs."""
    device: str
    """The actors' torch device: cuda or cpu."""
    batch_size: int
    """Images that are labelled together."""
    n_readers: int
    """CPUs that no actor reserves. Each reads a shard."""
    n_writers: int
    """Threads of the driver that commit shards."""

    def at(self, stage: str) -> int:
        """How many work at a stage at the same time."""
        return {"read": self.n_readers, "write": self.n_writers}.get(stage, self.n_actors)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleCosts:
    """What labelling a sample took."""

    n_images: int
    """Images of the sample, rejected ones included."""
    n_rejected: int
    """Images of the sample that were rejected."""
    start_up_s: float
    """Seconds from the job's start to its first result: listing the source, starting Ray, loading the model."""
    arrivals: Sequence[tuple[float, int]]
    """Each result: the second at which it came back, by any clock, and its number of images."""
    shard_costs: Sequence[tuple[int, float]]
    """Each shard: its number of images, and the seconds that actors spent on them."""
    seconds_an_image: dict[str, float]
    """Busy seconds of one worker for an image, by stage. The first result, with its start-up, does not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSizes:
    """Bytes that a store's files take: some for each shard, and some more for each image."""

    bytes_a_shard: float
    """Bytes of a shard's two files without any rows."""
    label_bytes_an_image: float
    """Bytes of an image's rows in `labels`, as they are committed."""
    image_bytes_an_image: float
    """Bytes of an image's row in `images`."""
    compacted_label_bytes_an_image: float
    """Bytes of an image's rows in `labels` after compaction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageForecast:
    """A stage's part in the work."""

    stage: str
    """read, decode, infer or write."""
    seconds_an_image: float
    """Busy seconds of one worker for an image."""
    share: float
    """The stage's share of the busy seconds of all stages, between 0 and 1."""
    workers: int
    """How many work at this stage at the same time."""
    images_per_s: float
    """Images a second of these workers if no other stage holds them up; at least the rate that was measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a job over a whole source will take."""

    run: str
    """Name of the run that the job would make or continue."""
    source: str
    """The source as the run's record has it."""
    fingerprint: str
    """The run's fingerprint: the forecast holds for this model and these settings only."""
    n_shards: int
    """Shards of the source."""
    source_bytes: int
    """Bytes of all shards; estimated where no listing has their sizes."""
    n_images: Estimate
    """Images of the source."""
    start_up_s: float
    """Seconds until the first result."""
    images_per_s: Estimate
    """Images a second from the first result on."""
    seconds: Estimate
    """Wall clock of the job in seconds, as its record counts them."""
    usd: Estimate | None
    """Cost of the machines; None without a price."""
    output_bytes: Estimate
    """Bytes that the job adds to the store."""
    compacted_bytes: Estimate
    """Bytes that are left of `output_bytes` after compaction."""
    output: OutputSizes
    """Sizes that were measured on the sample's output."""
    stages: list[StageForecast]
    bottleneck: str
    """The stage that the others wait for."""
    workers: Workers
    """The workers of the job: those of the sample, or as many as the GPUs that were asked for take."""
    n_sampled: int
    """Images that were labelled for the forecast."""
    n_shards_sampled: int
    """Shards whose beginnings were labelled for the forecast."""
    n_rejected: int
    """Images of the sample that were rejected."""
    notes: list[str]
    """Sentences for the user about what the forecast assumes."""
    n_image_tokens: int = 0
    """Tokens that a photograph costs in front of every label, of a model of the hub and where image tokens are merged;
    0 for recognizers that read all of their own."""

    def seconds_for(self, n_bytes: int, n_images_at_most: int = 0) -> float:
        """Seconds of a job over a part of the source.

        Args:
            n_bytes: bytes of the shards that it labels.
            n_images_at_most: number of images at which it stops; 0 is for no limit.
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
            values = json.loads(Path(path).read_text("utf-8-sig"))
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
    n_image_tokens: int = 0,
    **described: str,
) -> Forecast:
    """Predicts a job over the whole source.

    Args:
        n_gpus: predict for so many GPUs, by what one actor does; 0 is for the workers that labelled the sample.
        usd_per_hour: price of all machines together; None leaves the cost out.
        n_image_tokens: as of `Forecast`.
        described: run, source and fingerprint.

    Raises TagstreamError where the sample is too small to predict from.
    """
    measured = steady_rate(costs, extent)
    scaled, notes = _scaled(workers, n_gpus)
    pace = _find_pace(measured, costs, workers, scaled)
    seconds = _plus(_over_rate(extent.n_images, pace.images_per_s), costs.start_up_s)
    return Forecast(
        n_shards=extent.n_shards,
        source_bytes=extent.n_bytes,
        n_images=extent.n_images,
        start_up_s=costs.start_up_s,
        images_per_s=pace.images_per_s,
        seconds=seconds,
        usd=None if usd_per_hour is None else seconds.times(usd_per_hour / 3600),
        output_bytes=_output_bytes(extent, output),
        compacted_bytes=extent.n_images.times(output.compacted_label_bytes_an_image + output.image_bytes_an_image),
        output=output,
        stages=pace.stages,
        bottleneck=pace.bottleneck,
        workers=scaled,
        n_sampled=costs.n_images,
        n_shards_sampled=len(extent.heads),
        n_rejected=costs.n_rejected,
        notes=[*notes, *pace.notes],
        n_image_tokens=n_image_tokens,
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


@dataclass(frozen=True, slots=True)
class _Pace:
    """How fast a job labels, and which stage it waits for."""

    images_per_s: Estimate
    stages: list[StageForecast]
    bottleneck: str
    notes: list[str]


def _find_pace(measured: Estimate, costs: SampleCosts, workers: Workers, scaled: Workers) -> _Pace:
    """The pace of a job.

    Args:
        measured: images a second of the sample, which `workers` labelled.
        scaled: the workers of the job.
    """
    wanted = measured.times(scaled.n_actors / workers.n_actors)
    stages = _stages(costs, scaled, measured, wanted)
    reached, bottleneck = _limited(measured, wanted, stages)
    is_slower = reached.value < wanted.value
    notes = [f"{bottleneck} does not keep up with {scaled.n_actors} actors"] if is_slower else []
    return _Pace(reached, stages, bottleneck, notes)


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


def _output_bytes(extent: Extent, output: OutputSizes) -> Estimate:
    """What the store's files take before they are compacted."""
    of_images = extent.n_images.times(output.label_bytes_an_image + output.image_bytes_an_image)
    return _plus(of_images, output.bytes_a_shard * extent.n_shards)


def _plus(estimate: Estimate, fixed: float) -> Estimate:
    return Estimate(estimate.value + fixed, estimate.low + fixed, estimate.high + fixed)
