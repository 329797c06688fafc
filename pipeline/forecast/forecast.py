"""From what a sample took to what the whole source will take."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate
from pipeline.forecast.extent import Extent
from pipeline.forecast.pace import SampleCosts, StageForecast, Workers, find_pace, scale, steady_rate
from pipeline.labelling.pending import ShardPlan
from schemas import RunRecord


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
    """Tokens that each view of a photograph costs in front of every label, of a model of the hub and where image tokens
    are merged; 0 for recognizers that read all of their own."""
    n_reused: int = 0
    """Images of the sample that got the labels of an image of the same content."""
    n_near_duplicates: int = 0
    """Images of the sample that got the labels of an image that looks alike."""

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
    decode_in: str = "auto",
    decoding: str = "exact",
    usd_per_hour: float | None = None,
    n_image_tokens: int = 0,
    n_reused: int = 0,
    n_near_duplicates: int = 0,
    **described: str,
) -> Forecast:
    """Predicts a job over the whole source.

    Args:
        n_gpus: predict for so many GPUs and the CPUs of now; 0 is for the workers that labelled the sample.
        decode_in, decoding: where the job decodes and how much of JPEGs, as its settings say.
        usd_per_hour: price of all machines together; None leaves the cost out.
        n_image_tokens, n_reused, n_near_duplicates: as of `Forecast`.
        described: run, source and fingerprint.

    Raises TagstreamError where the sample is too small to predict from.
    """
    measured = steady_rate(costs, extent)
    scaled, notes = scale(workers, n_gpus, costs, decode_in, extent.n_shards)
    pace = find_pace(measured, costs, workers, scaled, decoding)
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
        n_reused=n_reused,
        n_near_duplicates=n_near_duplicates,
        **described,
    )


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
