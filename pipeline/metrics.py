"""What a labelling job tells Prometheus while it runs, through Ray: every metric's name is here, with its unit.

Ray's nodes show them under `ray_` and this name. Where no node shows any, a count costs some microseconds a batch.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.background import in_background

# Of every metric. A job goes by the time at which it began, as its record does; `job` is a label that Prometheus sets.
JOB_TAGS = ("run", "started")
_WORKER_TAGS = ("worker", "device")
_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
# Ray shows what a gauge was set to only once: it is set again and again.
SHOW_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric as Prometheus knows it, without Ray's `ray_` in front."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    """Beside those of the job."""


IMAGES = Metric(
    name="tagstream_images_total", kind="counter", description="Samples that came back, labelled or rejected."
)
REJECTS = Metric(
    name="tagstream_rejects_total",
    kind="counter",
    description="Samples that were rejected, by stage and class of the fault.",
    tags=("stage", "error"),
)
REUSED = Metric(
    name="tagstream_reused_total",
    kind="counter",
    description="Samples that get the labels of an image of the same content.",
)
NEAR_DUPLICATES = Metric(
    name="tagstream_near_duplicates_total",
    kind="counter",
    description="Samples that get the labels of an image of their shard that looks alike.",
)
BATCH_SECONDS = Metric(
    name="tagstream_batch_seconds",
    kind="histogram",
    description="Seconds of work on a batch: read, decode, encode, prefill, branches; commit is that of a shard.",
    tags=("stage",),
)
# Of a histogram Ray knows in which bucket a value fell, and makes the sum of the buckets' middles.
STAGE_SECONDS = Metric(
    name="tagstream_stage_seconds_total",
    kind="counter",
    description="The same seconds, added up: busy seconds of all workers.",
    tags=("stage",),
)
SHARDS_OPEN = Metric(
    name="tagstream_shards_open", kind="gauge", description="Shards of this job that are not committed yet."
)
COMMIT_QUEUE = Metric(
    name="tagstream_commit_queue_shards",
    kind="gauge",
    description="Whole shards that are being written or wait for it.",
)
ETA = Metric(name="tagstream_eta_seconds", kind="gauge", description="Seconds to the job's end, at the rate so far.")
DEVICE_QUEUE = Metric(
    name="tagstream_device_queue_batches",
    kind="gauge",
    description="Decoded batches that wait for the actor's device.",
    tags=_WORKER_TAGS,
)
DEVICE_BUSY = Metric(
    name="tagstream_device_busy_ratio",
    kind="gauge",
    description="Share of the last seconds in which the actor's device was at work.",
    tags=_WORKER_TAGS,
)
DEVICE_MEMORY = Metric(
    name="tagstream_device_memory_bytes",
    kind="gauge",
    description="The GPU's memory that the actor has reserved; without a GPU the most that its process held.",
    tags=_WORKER_TAGS,
)
METRICS = (
    IMAGES,
    REJECTS,
    REUSED,
    NEAR_DUPLICATES,
    BATCH_SECONDS,
    STAGE_SECONDS,
    SHARDS_OPEN,
    COMMIT_QUEUE,
    ETA,
    DEVICE_QUEUE,
    DEVICE_BUSY,
    DEVICE_MEMORY,
)


@contextmanager
def repeated(show: Callable[[], None]) -> Iterator[None]:
    """Calls it every few seconds while the context lasts, and once more at its end."""

    def repeat(is_over: threading.Event) -> None:
        while not is_over.wait(SHOW_EVERY_S):
            show()

    try:
        with in_background("metrics", repeat):
            yield
    finally:
        show()


class _Unasked:
    """A metric of a process without Ray, which nobody can ask for it."""

    def inc(self, *_: object) -> None: ...

    observe = set = inc


def make_metrics(metrics: tuple[Metric, ...], run: str, job: str) -> Mapping[Metric, Any]:
    """What to count with, by metric: Ray's own classes, if this process has joined a Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return dict.fromkeys(metrics, _Unasked())
    from ray.util.metrics import Counter, Gauge, Histogram

    kinds = {"counter": (Counter, {}), "gauge": (Gauge, {}), "histogram": (Histogram, {"boundaries": _SECONDS})}
    made = {}
    for metric in metrics:
        kind, options = kinds[metric.kind]
        made[metric] = kind(metric.name, metric.description, tag_keys=(*JOB_TAGS, *metric.tags), **options)
        made[metric].set_default_tags({"run": run, "started": job})
    return made
