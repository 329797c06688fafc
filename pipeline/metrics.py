"""What a labelling job tells Prometheus while it runs, through Ray: every metric's name is here, with its unit.

Ray's nodes show them under `ray_` and this name. Where no node shows any, a count costs some microseconds a batch.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataflow.device_thread import DeviceThread
from pipeline.labelling.assembly import PARTS
from pipeline.labelling.progress import ProgressSnapshot
from schemas import REJECTED

# Of every metric. A job goes by the time at which it began, as its record does; `job` is a label that Prometheus sets.
JOB_TAGS = ("run", "started")
_WORKER_TAGS = ("worker", "device")
_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
# Ray shows what a gauge was set to only once: it is set again and again.
_EVERY_S = 2.0


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
    BATCH_SECONDS,
    STAGE_SECONDS,
    SHARDS_OPEN,
    COMMIT_QUEUE,
    ETA,
    DEVICE_QUEUE,
    DEVICE_BUSY,
    DEVICE_MEMORY,
)
_BATCH_STAGES = ("read", "decode", *PARTS)


class JobMetrics:
    """What the process that runs a job tells."""

    def __init__(self, run: str, job: str) -> None:
        told = (IMAGES, REJECTS, BATCH_SECONDS, STAGE_SECONDS, SHARDS_OPEN, COMMIT_QUEUE, ETA)
        self._metrics = _make_metrics(told, run, job)

    def count_rows(self, rows: pa.Table) -> None:
        """Counts samples, rejects and seconds by stage of rows of `pipeline.dataflow.labeler.LABELLED_ROWS`."""
        self._metrics[IMAGES].inc(rows.num_rows)
        rejected = rows.select(["stage", "error"]).filter(pc.equal(rows.column("status"), REJECTED))
        for reject in rejected.group_by(["stage", "error"]).aggregate([([], "count_all")]).to_pylist():
            tags = {"stage": reject["stage"], "error": reject["error"]}
            self._metrics[REJECTS].inc(reject["count_all"], tags)
        for stage in _BATCH_STAGES:
            # Seconds stand on the first row of each batch.
            seconds = rows.column(f"{stage}_s")
            for batch_s in seconds.filter(pc.greater(seconds, 0)).to_pylist():
                self._count_seconds(stage, batch_s)

    def count_commit(self, seconds: float) -> None:
        """Counts a shard that was written."""
        self._count_seconds("commit", seconds)

    def _count_seconds(self, stage: str, seconds: float) -> None:
        self._metrics[BATCH_SECONDS].observe(seconds, {"stage": stage})
        self._metrics[STAGE_SECONDS].inc(seconds, {"stage": stage})

    def show(self, at: ProgressSnapshot, n_committing: int) -> None:
        """Sets what a job shows of itself at this moment."""
        self._metrics[SHARDS_OPEN].set(at.n_shards - at.n_shards_done)
        self._metrics[COMMIT_QUEUE].set(n_committing)
        if at.eta_s is not None:
            self._metrics[ETA].set(at.eta_s)


class DeviceMetrics:
    """What a labelling actor tells of its device, from a thread of its own."""

    def __init__(self, run: str, job: str, device: str, thread: DeviceThread) -> None:
        self._metrics = _make_metrics((DEVICE_QUEUE, DEVICE_BUSY, DEVICE_MEMORY), run, job)
        self._tags = {"worker": f"{socket.gethostname()}:{os.getpid()}", "device": device}
        self._device = device
        self._thread = thread

    def start(self) -> None:
        """Shows the device as long as the process lives."""
        threading.Thread(target=self._show_for_ever, name="metrics", daemon=True).start()

    def _show_for_ever(self) -> None:
        while True:
            busy_s, at = self._thread.busy_s, time.perf_counter()
            time.sleep(_EVERY_S)
            share = (self._thread.busy_s - busy_s) / (time.perf_counter() - at)
            self._metrics[DEVICE_BUSY].set(min(1.0, share), self._tags)
            self._metrics[DEVICE_QUEUE].set(self._thread.n_waiting, self._tags)
            self._metrics[DEVICE_MEMORY].set(_memory_bytes(self._device), self._tags)


@contextmanager
def repeated(show: Callable[[], None]) -> Iterator[None]:
    """Calls it every few seconds while the context lasts, and once more at its end."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.wait(_EVERY_S):
            show()

    thread = threading.Thread(target=repeat, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        show()


def _make_metrics(metrics: tuple[Metric, ...], run: str, job: str) -> Mapping[Metric, Any]:
    from ray.util.metrics import Counter, Gauge, Histogram

    kinds = {"counter": (Counter, {}), "gauge": (Gauge, {}), "histogram": (Histogram, {"boundaries": _SECONDS})}
    made = {}
    for metric in metrics:
        kind, options = kinds[metric.kind]
        made[metric] = kind(metric.name, metric.description, tag_keys=(*JOB_TAGS, *metric.tags), **options)
        made[metric].set_default_tags({"run": run, "started": job})
    return made


def _memory_bytes(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.memory_reserved()
    # In KiB, but for macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
