"""Reads shards with Ray Data: one read task a shard, one row a batch.

A row is a whole batch of samples of one shard, cut at fixed places. Ray may then move, merge and split blocks as it
likes: the images that are labelled together never change, so neither do the labels when a job is repeated or resumed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from pipeline.sources.image_folder import read_files
from pipeline.sources.listing import Shard, current_version
from pipeline.sources.parquet_reader import read_parquet
from pipeline.sources.sample import MAX_SAMPLE_BYTES, Sample
from pipeline.sources.tar_reader import read_tar
from pipeline.storage.files import open_filesystem, storage_errors

_READ_AHEAD_BYTES = 8 << 20
# A batch is closed early at this size, so that a shard of huge images still fits a worker's memory.
_MAX_BATCH_BYTES = 128 << 20

SAMPLE = pa.struct(
    [
        ("key", pa.string()),
        ("data", pa.large_binary()),
        ("caption", pa.string()),
        ("truth", pa.list_(pa.string())),
        ("error", pa.string()),
        ("message", pa.string()),
    ]
)
BATCHES = pa.schema(
    [
        ("shard", pa.string()),
        ("first_index", pa.int32()),
        ("samples", pa.list_(SAMPLE)),
        # Only on the shard's last batch: how many samples it has, and the version of the file that was read.
        ("n_samples", pa.int32()),
        ("source_size", pa.int64()),
        ("source_etag", pa.string()),
        ("read_s", pa.float64()),
    ]
)


class ShardDatasource(Datasource):
    """Streams the samples of shards as rows of `BATCHES`; larger images than `max_sample_bytes` are rejected."""

    def __init__(self, shards: list[Shard], batch_size: int, max_sample_bytes: int = MAX_SAMPLE_BYTES) -> None:
        super().__init__()
        self._shards = shards
        self._batch_size = batch_size
        self._max_sample_bytes = max_sample_bytes

    def get_name(self) -> str:
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(shard.size or 0 for shard in self._shards) or None

    def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
        return [_read_task(shard, self._batch_size, self._max_sample_bytes) for shard in self._shards]


def read_batches(shard: Shard, batch_size: int, max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Iterator[pa.Table]:
    """A shard's batches, each a table of one row; the last names the number of samples and the file's version.

    Raises StorageError, with the shard's name, where the storage fails.
    """
    with storage_errors(f"read shard {shard.name} ({shard.url})"):
        filesystem, path = open_filesystem(shard.url)
        version = (shard.size, shard.etag) if shard.kind == "folder" else current_version(filesystem, path)
        first_index, started = 0, time.perf_counter()
        batches = _with_last(cut_batches(_wanted_samples(shard, max_sample_bytes), batch_size))
        for samples, is_last in batches:
            n_samples = first_index + len(samples)
            yield _row(shard.name, first_index, samples, n_samples if is_last else None, version, started)
            first_index, started = n_samples, time.perf_counter()


def cut_batches(samples: Iterable[Sample], batch_size: int) -> Iterator[list[Sample]]:
    """Cuts samples into batches of `batch_size`, fewer where their images would be too large together."""
    batch: list[Sample] = []
    n_bytes = 0
    for sample in samples:
        size = len(sample.data or b"")
        if batch and (len(batch) == batch_size or n_bytes + size > _MAX_BATCH_BYTES):
            yield batch
            batch, n_bytes = [], 0
        batch.append(sample)
        n_bytes += size
    if batch:
        yield batch


def _wanted_samples(shard: Shard, max_sample_bytes: int) -> Iterator[Sample]:
    samples = _read_samples(shard, max_sample_bytes)
    if shard.wanted is None or shard.kind == "folder":
        yield from samples
        return
    wanted = set(shard.wanted)
    for index, sample in enumerate(islice(samples, max(wanted) + 1)):
        if index in wanted:
            yield sample


def _read_samples(shard: Shard, max_sample_bytes: int) -> Iterator[Sample]:
    filesystem, path = open_filesystem(shard.url)
    if shard.kind == "folder":
        yield from read_files(filesystem, path, shard.files, max_sample_bytes)
        return
    # Parquet jumps to its footer and between columns; a tar is read from front to back.
    cache = "readahead" if shard.kind == "tar" else "none"
    with filesystem.open(path, "rb", block_size=_READ_AHEAD_BYTES, cache_type=cache) as stream:
        if shard.kind == "tar":
            yield from read_tar(stream, max_sample_bytes)
        else:
            yield from read_parquet(stream, shard.url, max_sample_bytes)


def _with_last(batches: Iterable[list[Sample]]) -> Iterator[tuple[list[Sample], bool]]:
    pending: list[Sample] | None = None
    for batch in batches:
        if pending is not None:
            yield pending, False
        pending = batch
    if pending is not None:
        yield pending, True


def _row(
    shard: str,
    first_index: int,
    samples: list[Sample],
    n_samples: int | None,
    version: tuple[int | None, str | None],
    started: float,
) -> pa.Table:
    columns = {name: [getattr(sample, name) for sample in samples] for name in SAMPLE.names}
    arrays = [pa.array(columns[field.name], field.type) for field in SAMPLE]
    nested = pa.ListArray.from_arrays([0, len(samples)], pa.StructArray.from_arrays(arrays, fields=list(SAMPLE)))
    size, etag = version if n_samples is not None else (None, None)
    values = [[shard], [first_index], nested, [n_samples], [size], [etag], [time.perf_counter() - started]]
    return pa.table(values, schema=BATCHES)


def _read_task(shard: Shard, batch_size: int, max_sample_bytes: int) -> ReadTask:
    metadata = BlockMetadata(num_rows=None, size_bytes=shard.size, input_files=[shard.url], exec_stats=None)
    return ReadTask(lambda: read_batches(shard, batch_size, max_sample_bytes), metadata)
