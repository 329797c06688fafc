"""Batches whose known images are marked where they are read: their bytes are neither sent, decoded nor labelled.

What a mark says depends on what was known when the shard's turn came, and on the samples before it in its shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.reuse.known_images import KnownImages
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.batches import BATCHES, SAMPLE, read_batches_or_failure
from pipeline.sources.shard import Shard
from schemas import content_hash

# As the number of a shard: the one that the image is in.
SAME_SHARD = -1
# Hash and length of every sample that has bytes; shard and index of the image whose labels it gets, null for others.
KNOWN = pa.struct(
    [("content_hash", pa.string()), ("n_bytes", pa.int64()), ("shard", pa.int32()), ("index", pa.int32())]
)
KNOWN_FIELD = pa.field("known", pa.list_(KNOWN))
# Rows of `BATCHES`, of which samples with a mark have no bytes any more.
MARKED_BATCHES = BATCHES.append(KNOWN_FIELD)


@dataclass(frozen=True, slots=True)
class MarkingRead:
    """Reads a shard as `pipeline.sources.batches.read_batches_or_failure`, as rows of `MARKED_BATCHES`."""

    known: Callable[[], KnownImages]
    """Is asked once a shard."""

    def __call__(self, shard: Shard, batch_size: int, max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Iterator[pa.Table]:
        known, seen = self.known(), dict[str, int]()
        for batch in read_batches_or_failure(shard, batch_size, max_sample_bytes):
            yield mark_batch(batch, known, seen)


def mark_batch(batch: pa.Table, known: KnownImages, seen: dict[str, int]) -> pa.Table:
    """A row of `BATCHES` as one of `MARKED_BATCHES`.

    Args:
        seen: index in the shard of the first image of each content that is not known; it is added to.
    """
    (samples,) = batch.column("samples").chunks
    data, first = samples.values.field("data"), batch.column("first_index")[0].as_py()
    hashes = [content_hash(image.as_buffer()) if image.is_valid else None for image in data]
    shard, index = known.find(pa.array(hashes, pa.string()))
    is_marked = shard >= 0
    for place, digest in enumerate(hashes):
        if (
            digest is not None
            and not is_marked[place]
            and (before := seen.setdefault(digest, first + place)) < first + place
        ):
            is_marked[place], shard[place], index[place] = True, SAME_SHARD, before
    marks = pa.StructArray.from_arrays(
        [
            pa.array(hashes, pa.string()),
            pc.binary_length(data),
            pa.array(shard, pa.int32(), mask=~is_marked),
            pa.array(index, pa.int32(), mask=~is_marked),
        ],
        fields=list(KNOWN),
    )
    if is_marked.any():
        batch = _without_bytes(batch, samples, is_marked)
    offsets = pa.array([0, len(marks)], pa.int32())
    return batch.append_column(KNOWN_FIELD, pa.ListArray.from_arrays(offsets, marks))


def _without_bytes(batch: pa.Table, samples: pa.ListArray, is_marked: np.ndarray) -> pa.Table:
    """The batch, in which the marked samples have no bytes."""
    values = samples.values
    arrays = [
        pc.if_else(pa.array(is_marked), pa.scalar(None, pa.large_binary()), values.field(name))
        if name == "data"
        else values.field(name)
        for name in SAMPLE.names
    ]
    kept = pa.StructArray.from_arrays(arrays, fields=list(SAMPLE))
    nested = pa.ListArray.from_arrays(pa.array([0, len(kept)], pa.int32()), kept)
    return batch.set_column(batch.column_names.index("samples"), BATCHES.field("samples"), nested)
