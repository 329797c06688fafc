"""How fast this machine reads, decodes, labels and commits: each alone, with the code that a labelling job uses.

The data is generated from a fixed seed, so that machines are compared by the same work.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from model.folder import is_hub_model
from model.images.preprocessing import ImagePreprocessor
from pipeline.actor.decoding import DecodePool, decode
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.cluster.nodes import local_node
from pipeline.cluster.pool import plan_pool
from pipeline.labelling.committing import count_threads
from pipeline.machine import count_cores, describe_hardware, installed_versions
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from pipeline.storage.files import storage_errors
from pipeline.storage.model_cache import fetch_model, measure_image_cost
from pipeline.store.store import Store
from schemas import IMAGES, LABELLED, LABELS, image_id

_REPETITIONS = 5
_N_IMAGES = 256
_SIZE = (512, 384)
_SHARD_ROWS, _LABELS_AN_IMAGE = 1000, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedRequest:
    """One invocation of `tagstream bench`."""

    model: str = "demo"
    """Local folder, hub id or URL of the model; the default is the model that comes along."""
    seconds: float = 10.0
    """Seconds for each measurement, all repetitions together. It takes longer where one piece of work does."""
    folder: str | None = None
    """Local folder for the shard that is read; the default is the system's temporary folder."""
    store: str | None = None
    """Local folder or s3:// URL to commit to; the default is a folder beside the shard that is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """A rate that was measured several times."""

    what: str
    """What was measured, such as `decode, one core`."""
    unit: str
    """Unit of the rate, such as images/s."""
    median: float
    """Median of the repetitions."""
    low: float
    """The slowest repetition."""
    high: float
    """The fastest repetition."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineSpeed:
    """All speeds of a machine, and what they were measured with."""

    date: str
    """When it was measured: UTC, ISO 8601."""
    hardware: dict[str, str]
    """Processor, memory, GPUs and the like, by name."""
    versions: dict[str, str]
    """Versions of the libraries that do the work, by name."""
    data: str
    """What the work was done on, as a sentence."""
    speeds: list[Speed] = field(default_factory=list)


class SpeedJob:
    """Measures one thing after the other."""

    def __init__(self, request: SpeedRequest) -> None:
        self.request = request
        self.phase = "making images"

    def run(self) -> MachineSpeed:
        """Measures. Raises TagstreamError where the model or the store cannot be used; leaves nothing behind."""
        request = self.request
        with ExitStack() as stack:
            with storage_errors(f"write to {request.folder or 'the temporary folder'}"):
                folder = stack.enter_context(tempfile.TemporaryDirectory(dir=request.folder))
            images = make_images()
            shard = _write_shard(Path(folder) / "shard.tar", images)
            speeds = [*self._reading(shard), *self._decoding(images), *self._labelling(images)]
            with _own_store(request.store or folder) as store:
                speeds += self._committing(store)
        return MachineSpeed(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            hardware=describe_hardware(),
            versions=installed_versions(),
            data=_describe_data(images, request.model),
            speeds=speeds,
        )

    def _reading(self, shard: Shard) -> list[Speed]:
        self.phase = "reading"

        def read() -> int:
            return sum(len(batch.column("samples")[0]) for batch in read_batches(shard, 64))

        members = self._speed("read", "members/s", read)
        mb_an_image = (shard.size or 0) / _N_IMAGES / 1e6
        return [members, _times(members, mb_an_image, "MB/s")]

    def _decoding(self, images: list[bytes]) -> list[Speed]:
        self.phase = "decoding"
        preprocessor = ImagePreprocessor(image_size=224)

        def speed(what: str, n_threads: int) -> Speed:
            pool = DecodePool(lambda data: decode(data, preprocessor), n_threads)
            return self._speed(what, "images/s", lambda: len(pool.decode(images)))

        return [speed("decode, one core", 1), speed("decode, all cores", count_cores())]

    def _labelling(self, images: list[bytes]) -> list[Speed]:
        self.phase = "loading the model"
        settings = LabelSettings()
        pool = plan_pool([local_node()], settings)
        config = LabelerConfig.of(
            self.request.model, settings, dtype=pool.dtype, device=pool.device, n_threads=pool.n_threads
        )
        labeler = Labeler(config)
        decoded = labeler.decode_images(images[: pool.batch_size])
        seen = [image.views for image in decoded if image.views]
        self.phase = "labelling"
        what = f"label, {pool.device}, batches of {len(seen)}, top {settings.top_k}"

        def label() -> int:
            labeler.label_images(seen)
            return len(seen)

        return [self._speed(what, "images/s", label)]

    def _committing(self, store: Store) -> list[Speed]:
        self.phase = "committing"
        images, labels = _tables()
        n_threads = count_threads(store.filesystem)
        with ThreadPoolExecutor(n_threads) as pool:

            def commit() -> int:
                names = [uuid.uuid4().hex for _ in range(n_threads)]
                return sum(pool.map(lambda name: store.run("bench").commit(name, images, labels, {}), names))

            shards = self._speed(f"commit, {n_threads} threads", "shards/s", commit)
        return [shards, _times(shards, images.num_rows + labels.num_rows, "rows/s")]

    def _speed(self, what: str, unit: str, work: Callable[[], int]) -> Speed:
        """How much the work gets done a second; once before, not measured, it warms up."""
        work()
        rates = []
        for _ in range(_REPETITIONS):
            started, done = time.perf_counter(), 0
            while (elapsed_s := time.perf_counter() - started) < self.request.seconds / _REPETITIONS or not done:
                done += work()
            rates.append(done / elapsed_s)
        return Speed(what=what, unit=unit, median=median(rates), low=min(rates), high=max(rates))


def _describe_data(images: list[bytes], model: str) -> str:
    """What the work is done on, in words."""
    mean_kb = sum(map(len, images)) / len(images) / 1000
    described = f"{len(images)} JPEGs of {_SIZE[0]} x {_SIZE[1]}, {mean_kb:.0f} KB each; model {model}"
    if not is_hub_model(fetch_model(model)):
        return described
    n_tokens = measure_image_cost(model, LabelSettings().hub).n_tokens
    return f"{described}, {n_tokens:,} image tokens a photograph"


def make_images(n_images: int = _N_IMAGES) -> list[bytes]:
    """JPEGs with large and small structure, of about the size that photographs have."""
    rng = np.random.default_rng(0)
    return [_jpeg(rng) for _ in range(n_images)]


def _jpeg(rng: np.random.Generator) -> bytes:
    layers = [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for size in (6, 40, 256)]
    images = [np.asarray(layer.resize(_SIZE, Image.Resampling.BICUBIC), np.float32) for layer in layers]
    mixed = images[0] * 0.65 + images[1] * 0.2 + images[2] * 0.15
    buffer = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _write_shard(path: Path, images: list[bytes]) -> Shard:
    with tarfile.open(path, "w") as archive:
        for number, data in enumerate(images):
            info = tarfile.TarInfo(f"{number:05d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (shard,) = find_source(str(path)).shards
    return shard


@contextmanager
def _own_store(folder: str) -> Iterator[Store]:
    """A store below the folder that nobody else uses, deleted at the end."""
    store = Store(f"{folder.rstrip('/')}/tagstream-bench-{uuid.uuid4().hex[:12]}")
    try:
        yield store
    finally:
        with storage_errors(f"delete {store.url}"):
            if store.filesystem.exists(store.root):
                store.filesystem.rm(store.root, recursive=True)


def _tables() -> tuple[pa.Table, pa.Table]:
    """Images and labels of a shard as a job writes them."""
    rng = np.random.default_rng(0)
    words = [f"label {number}" for number in range(2000)]
    images: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for index in range(_SHARD_ROWS):
        key = f"{index:07d}"
        place = {"image_id": image_id("bench", key), "shard": "bench", "index": index}
        described = {"key": key, "status": LABELLED, "width": _SIZE[0], "height": _SIZE[1], "n_bytes": 50_000}
        digest = rng.bytes(16).hex()
        counts = {"n_labels": _LABELS_AN_IMAGE, "n_unfinished": 0}
        images.append({**place, **described, **counts, "content_hash": digest})
        scores = np.sort(rng.random(_LABELS_AN_IMAGE))[::-1]
        for rank, (word, score) in enumerate(zip(rng.choice(words, _LABELS_AN_IMAGE), scores, strict=True), start=1):
            labels.append(
                {**place, "rank": rank, "label": word, "score": score, "first_token_prob": score, "n_tokens": 2}
            )
    return pa.Table.from_pylist(images, schema=IMAGES), pa.Table.from_pylist(labels, schema=LABELS)


def _times(speed: Speed, factor: float, unit: str) -> Speed:
    values = {"median": speed.median * factor, "low": speed.low * factor, "high": speed.high * factor}
    return Speed(what=speed.what, unit=unit, **values)
