"""How fast a job labels, from what a sample of it took: the rate of its slowest stage, and what would make it faster.

Devices label, CPUs read and decode. More GPUs bring no more CPUs with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from model.images.reduced_decoding import DECODINGS
from pipeline.actor.rows import JOB_STAGES
from pipeline.dataflow.decode_place import ROOM, DecodeCpus, ImageWork, choose_place
from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate
from pipeline.forecast.extent import Extent
from pipeline.forecast.intervals import ratio_spread, within
from pipeline.settings.labelling import DECODE_PLACES

_MAX_BLOCKS, _MIN_BLOCKS = 10, 3
_CPU_STAGES = ("read", "decode")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """How many workers each stage of a job has."""

    n_actors: int
    """Labelling actors."""
    gpus_per_actor: float
    """GPUs of each actor, or its share of one; 0 on CPUs."""
    device: str
    """The actors' torch device: cuda or cpu."""
    batch_size: int
    """Images that are labelled together."""
    n_readers: int
    """CPUs that no actor reserves. They read, and decode where that is done in read tasks."""
    n_writers: int
    """Threads of the driver that commit shards."""
    cpus_per_actor: int = 1
    """CPUs that each actor reserves."""
    decode_threads: int = 1
    """Threads of each actor that decode where that is done in actors."""
    n_elsewhere: int = 0
    """How many of `n_readers` are on nodes without actors."""
    decode_in: str = "actor"
    """Where images are decoded: actor or read."""

    def at(self, stage: str) -> int:
        """How many work at a stage at the same time."""
        in_actors = self.n_actors * self.decode_threads
        decoders = self.n_readers if self.decode_in == "read" else in_actors
        return {"read": self.n_readers, "decode": decoders, "write": self.n_writers}.get(stage, self.n_actors)

    @property
    def cpus(self) -> DecodeCpus:
        """The CPUs that may decode."""
        return DecodeCpus(
            n_actors=self.n_actors,
            of_actor=self.decode_threads,
            n_free=self.n_readers,
            n_elsewhere=self.n_elsewhere,
        )


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
    """Each shard: its number of images, and the seconds that were spent on decoding and labelling them."""
    seconds_an_image: dict[str, float]
    """Busy seconds of one worker for an image, by stage; of `decode` those of a CPU. The first result, with its
    start-up, does not count."""
    reader_s: float = 0.0
    """Seconds for which an image holds one CPU of a read task that also decodes; 0 where none did."""
    n_bytes: float = 0.0
    """Bytes of an image as it is encoded."""
    view_bytes: float = 0.0
    """Bytes of what the recognizer sees of an image."""

    @property
    def work(self) -> ImageWork:
        seconds = {name: max(self.seconds_an_image.get(name, 0.0), 1e-9) for name in JOB_STAGES}
        return ImageWork(
            read_s=seconds["read"],
            decode_s=seconds["decode"],
            label_s=seconds["infer"],
            n_bytes=self.n_bytes,
            view_bytes=self.view_bytes,
        )


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
    """How many work at this stage at the same time: CPUs that read, CPUs that decode, actors, threads that write."""
    images_per_s: float
    """Images a second of these workers if no other stage holds them up; at least the rate that was measured. Where read
    tasks decode, reading and decoding share their CPUs, and have one rate."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a job labels, and which stage it waits for."""

    images_per_s: Estimate
    stages: list[StageForecast]
    bottleneck: str
    notes: list[str]


def scale(
    workers: Workers, n_gpus: int, costs: SampleCosts, decode_in: str, n_shards: int
) -> tuple[Workers, list[str]]:
    """The workers of a job on so many GPUs and the CPUs of now, and a note that says so.

    Args:
        n_gpus: 0 is for the workers that labelled the sample.
        decode_in: as in the settings: actor, read or auto.
        n_shards: of the source. A job with few is done before it knows where to decode.

    Raises TagstreamError where nothing can be said of GPUs from these workers.
    """
    if not n_gpus:
        cpus = workers.cpus
        if decode_in == "auto" and cpus.are_more_free and n_shards > 2 * cpus.n_first_shards:
            return replace(workers, decode_in=choose_place(costs.work, cpus).place), []
        return workers, []
    check_gpus(n_gpus, workers.device)
    n_cpus = workers.n_readers + workers.n_actors * workers.cpus_per_actor
    n_actors = max(1, int(n_gpus / workers.gpus_per_actor + 1e-9))
    of_actor = max(1, min(workers.cpus_per_actor, int((n_cpus - 1) / n_actors / 2)))
    scaled = replace(
        workers,
        n_actors=n_actors,
        cpus_per_actor=of_actor,
        decode_threads=of_actor,
        n_readers=max(1, n_cpus - n_actors * of_actor),
    )
    place = decode_in if decode_in in DECODE_PLACES else choose_place(costs.work, scaled.cpus).place
    note = (
        f"{n_actors} actors, the device of each as fast as one of the {workers.n_actors} that were measured; the "
        f"{n_cpus} CPUs of now read and decode"
    )
    return replace(scaled, decode_in=place), [note]


def check_gpus(n_gpus: int, device: str) -> None:
    """Raises TagstreamError where nothing can be said of so many GPUs from a sample that is labelled on this device."""
    if n_gpus and device != "cuda":
        raise TagstreamError(
            f"--gpus {n_gpus} predicts from what a GPU does, and the sample is labelled on {device}; run plan where "
            "there is a GPU, or leave --gpus out"
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


def find_pace(
    measured: Estimate, costs: SampleCosts, workers: Workers, scaled: Workers, decoding: str = "exact"
) -> Pace:
    """The pace of a job.

    Args:
        measured: images a second of the sample, which `workers` labelled.
        scaled: the workers of the job.
        decoding: how much of JPEGs is decoded, as in the settings.
    """
    seen, held_up = _seen(measured.value, costs, workers)
    limits = {stage: _carried_over(stage, seen[stage], costs, workers, scaled) for stage in JOB_STAGES}
    # What its parts do not explain, such as a device that waits between batches, holds the stage up in the job too.
    reached = {stage: limit * held_up.get(stage, 1.0) for stage, limit in limits.items()}
    seconds = {stage: max(costs.seconds_an_image.get(stage, 0.0), 1e-9) for stage in JOB_STAGES}
    rate = min(reached.values())
    slowest = [stage for stage in JOB_STAGES if reached[stage] <= rate * (1 + 1e-9)]
    bottleneck = max(slowest, key=lambda stage: seconds[stage] / scaled.at(stage))
    stages = [
        StageForecast(
            stage=stage,
            seconds_an_image=seconds[stage],
            share=seconds[stage] / sum(seconds.values()),
            workers=scaled.at(stage),
            images_per_s=limits[stage],
        )
        for stage in JOB_STAGES
    ]
    notes = _advice(bottleneck, reached, costs, scaled, decoding)
    return Pace(measured.times(rate / measured.value), stages, bottleneck, notes)


def _seen(measured: float, costs: SampleCosts, workers: Workers) -> tuple[dict[str, float], dict[str, float]]:
    """Images a second that each stage managed in the sample; and the share of that which came of the slowest one."""
    seen = {stage: _limit(stage, costs, workers) for stage in JOB_STAGES}
    slowest = min(seen, key=lambda stage: seen[stage])
    if workers.decode_in == "read" and slowest in _CPU_STAGES:
        # Readers begin together and hand on their first batches together: results come faster than they are made.
        share = min(1.0, measured / seen[slowest])
        return seen, dict.fromkeys(_CPU_STAGES, share)
    # A part of the seconds lies before the first result, and more than one batch is worked on at a time.
    seen = {stage: max(limit, measured) for stage, limit in seen.items()}
    return seen, {slowest: measured / seen[slowest]}


def _limit(stage: str, costs: SampleCosts, workers: Workers) -> float:
    """Images a second of a stage's workers if no other stage holds them up."""
    if workers.decode_in == "read" and stage in _CPU_STAGES:
        return workers.n_readers / _reader_s(costs)
    return workers.at(stage) / max(costs.seconds_an_image.get(stage, 0.0), 1e-9)


def _reader_s(costs: SampleCosts) -> float:
    """Seconds for which an image holds a CPU of a read task that decodes."""
    return costs.reader_s or costs.work.read_s + costs.work.decode_s


def _carried_over(stage: str, seen: float, costs: SampleCosts, workers: Workers, scaled: Workers) -> float:
    if stage in _CPU_STAGES and scaled.decode_in != workers.decode_in:
        limit = _limit(stage, costs, scaled)
        return limit / ROOM if scaled.decode_in == "actor" and stage == "decode" else limit
    return seen * scaled.at(stage) / workers.at(stage)


def _advice(
    bottleneck: str, reached: Mapping[str, float], costs: SampleCosts, workers: Workers, decoding: str
) -> list[str]:
    """What the job waits for, and what would help, where that is not the model."""
    if bottleneck == "infer":
        return []
    missing = reached["infer"] - reached[bottleneck]
    if missing <= 0:
        return []
    notes = [f"{bottleneck} does not keep up with {workers.n_actors} actors"]
    if bottleneck == "write":
        return notes
    elsewhere = "on nodes without GPUs too"
    if bottleneck == "decode" and workers.decode_in == "actor":
        n_cpus = math.ceil(reached["infer"] * _reader_s(costs))
        remedy = f"{n_cpus:,} CPUs would keep them busy with decode_in = read, {elsewhere}"
    else:
        n_cpus = math.ceil(missing * (_reader_s(costs) if workers.decode_in == "read" else costs.work.read_s))
        remedy = f"{n_cpus:,} more CPUs would keep them busy, {elsewhere}"
    faster = next(iter(list(DECODINGS)[list(DECODINGS).index(decoding) + 1 :]), None)
    others = {
        "decode": f'or decoding = "{faster}" where they are large JPEGs' if faster else "or smaller images",
        "read": "where images are files of their own, tagstream pack makes shards of them",
    }
    return [*notes, f"devices label {reached['infer']:,.0f} images/s: {remedy}; {others[bottleneck]}"]
