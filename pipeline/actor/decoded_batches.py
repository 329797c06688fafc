"""Batches whose images are decoded already, in the tasks that read them. They are cut where encoded ones are.

An image travels as what the recognizer sees of it. The encoded bytes stay behind, with all that is to be known of them:
their number, their hash, the picture's size, or the fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from model.images.opening import allow_image_pixels
from model.images.resampling import load_torch
from pipeline.actor.decoding import DecodedImage, DecodePool
from pipeline.reuse.marking import KNOWN_FIELD
from pipeline.reuse.seen_pictures import SeenPictures
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.batches import BATCHES, SAMPLE, read_batches_or_failure
from pipeline.sources.shard import Shard

# Views differ in size where a model takes pictures of any shape, and an image may have several.
VIEW = pa.struct([("height", pa.int32()), ("width", pa.int32()), ("pixels", pa.large_binary())])
# What is told of an image, under the names that `DecodedImage` has for it.
_TOLD = {
    "width": pa.int32(),
    "height": pa.int32(),
    "content_hash": pa.string(),
    "error": pa.string(),
    "message": pa.string(),
    "is_flat": pa.bool_(),
    "is_strange": pa.bool_(),
    "n_bytes": pa.int64(),
    "phash": pa.int64(),
    "near_index": pa.int32(),
    "near_distance": pa.int8(),
    "cpu_s": pa.float64(),
}
IMAGE = pa.struct([*_TOLD.items(), ("views", pa.list_(VIEW))])
_KEPT = pa.struct([field for field in SAMPLE if field.name != "data"])
# Rows of `BATCHES` with images in the place of encoded bytes, and the seconds that the task took for each by the clock.
DECODED_BATCHES = pa.schema(
    [
        *(pa.field("samples", pa.list_(_KEPT)) if field.name == "samples" else field for field in BATCHES),
        pa.field("images", pa.list_(IMAGE)),
        pa.field("task_s", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class DecodingRead:
    """Reads a shard and decodes its images in threads: a `pipeline.dataflow.datasource.Read` for any node."""

    decode_one: Callable[[bytes | None], DecodedImage]
    n_threads: int
    """Threads of each shard's task."""
    limit_s: float
    """Seconds that decoding one image may take."""
    max_image_pixels: int
    """Images that claim more pixels are rejected."""
    near_distance: int | None = None
    """An image whose hash differs from that of an earlier one of its shard in so many bits at most is not labelled;
    None for all are."""
    read: Callable[[Shard, int, int], Iterator[pa.Table]] = read_batches_or_failure
    """Reads a shard as rows of `BATCHES`, perhaps with marks (`pipeline.reuse.marking`)."""

    def __call__(self, shard: Shard, batch_size: int, max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Iterator[pa.Table]:
        """The shard's batches as rows of `DECODED_BATCHES`; a storage that fails is a last row with the `failure`.

        Memory holds two batches: one is read while the one before is decoded.
        """
        allow_image_pixels(self.max_image_pixels)
        # Otherwise it would count as the first image's decoding.
        load_torch()
        pool = DecodePool(self.decode_one, self.n_threads, self.limit_s)
        seen = None if self.near_distance is None else SeenPictures(self.near_distance)
        started = time.perf_counter()
        for batch in _read_ahead(self.read(shard, batch_size, max_sample_bytes)):
            yield _decode_batch(batch, pool, seen, started)
            # What waits until somebody takes the batch is no work.
            started = time.perf_counter()


def read_images(images: pa.StructArray) -> list[DecodedImage]:
    """The images of one batch; pixels are not copied out of Arrow."""
    told = {name: images.field(name).to_pylist() for name in _TOLD}
    views = images.field("views")
    return [
        DecodedImage(tuple(_read_views(views[place].values)), **dict(zip(told, values, strict=True)))
        for place, values in enumerate(zip(*told.values(), strict=True))
    ]


def _read_views(views: pa.StructArray) -> list[np.ndarray]:
    shapes = zip(views.field("height").to_pylist(), views.field("width").to_pylist(), strict=True)
    return [
        np.frombuffer(pixels.as_buffer(), np.uint8).reshape(*shape, 3)
        for pixels, shape in zip(views.field("pixels"), shapes, strict=True)
    ]


def _read_ahead(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The batches, of which the next one is read while one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _decode_batch(batch: pa.Table, pool: DecodePool, seen: SeenPictures | None, started: float) -> pa.Table:
    """A row of `BATCHES` as one of `DECODED_BATCHES`.

    Args:
        seen: what the shard's images before look like; it is added to. None where nobody asks.
        started: when the task began with it.
    """
    (samples,) = batch.column("samples").chunks
    images = pool.decode(samples.values.field("data").to_pylist())
    if seen is not None:
        images = _mark_near(images, seen, batch.column("first_index")[0].as_py())
    kept = pa.StructArray.from_arrays([samples.values.field(name) for name in _KEPT.names], fields=list(_KEPT))
    columns = {
        **{name: batch.column(name) for name in batch.column_names},
        "samples": _as_one_row(kept),
        "images": _as_one_row(_image_array(images)),
        "task_s": [time.perf_counter() - started],
    }
    schema = DECODED_BATCHES if KNOWN_FIELD.name not in columns else DECODED_BATCHES.append(KNOWN_FIELD)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _mark_near(images: Sequence[DecodedImage], seen: SeenPictures, first_index: int) -> list[DecodedImage]:
    """The images, of which those that look like an earlier one of the shard have no views, and say which that is."""
    marked = []
    for index, image in enumerate(images, first_index):
        if image.phash is not None and (near := seen.find_or_add(image.phash, index)) is not None:
            image = replace(image, views=(), near_index=near[0], near_distance=near[1])
        marked.append(image)
    return marked


def _as_one_row(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _image_array(images: Sequence[DecodedImage]) -> pa.StructArray:
    offsets = pa.array(np.cumsum([0, *(len(image.views) for image in images)]), pa.int32())
    arrays = [pa.array([getattr(image, name) for image in images], kind) for name, kind in _TOLD.items()]
    of_images = pa.ListArray.from_arrays(offsets, _view_array([view for image in images for view in image.views]))
    return pa.StructArray.from_arrays([*arrays, of_images], fields=list(IMAGE))


def _view_array(views: Sequence[np.ndarray]) -> pa.StructArray:
    pixels = np.concatenate([np.empty(0, np.uint8), *(view.ravel() for view in views)])
    offsets = np.cumsum([0, *(view.size for view in views)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(pixels)]
    arrays = [
        pa.array([view.shape[0] for view in views], pa.int32()),
        pa.array([view.shape[1] for view in views], pa.int32()),
        pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(views), buffers),
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(VIEW))
