"""Batches of a shard's samples, cut at the same samples in every job."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from pipeline.errors import StorageError
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.sample import Sample
from pipeline.sources.shard import Shard
from pipeline.sources.shard_reader import read_samples, read_version
from pipeline.storage.files import RETRY_WAITS_S, may_pass, storage_errors

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
        # Why the shard cannot be read on; the row has no samples then, and is the shard's last.
        ("failure", pa.string()),
    ]
)


def read_batches(shard: Shard, batch_size: int, max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Iterator[pa.Table]:
    """A shard's batches, each a table of one row; the last names the number of samples and the file's version.

    Raises StorageError, with the shard's name, where the storage fails.
    """
    n_given = 0
    with storage_errors(f"read shard {shard.name} ({shard.url})"):
        for wait_s in (*RETRY_WAITS_S, None):
            try:
                for batch in islice(_read_once(shard, batch_size, max_sample_bytes), n_given, None):
                    yield batch
                    n_given += 1
                return
            except Exception as error:
                if wait_s is None or not may_pass(shard.url, error):
                    raise
            time.sleep(random.random() * wait_s)


def read_batches_or_failure(
    shard: Shard, batch_size: int, max_sample_bytes: int = MAX_SAMPLE_BYTES
) -> Iterator[pa.Table]:
    """As `read_batches`; a storage that fails is a last row with the `failure`, so that it costs this shard alone."""
    try:
        yield from read_batches(shard, batch_size, max_sample_bytes)
    except StorageError as error:
        yield _row(shard.name, 0, [], None, (None, None), time.perf_counter(), str(error))


def _read_once(shard: Shard, batch_size: int, max_sample_bytes: int) -> Iterator[pa.Table]:
    version = read_version(shard)
    first_index, started = 0, time.perf_counter()
    batches = _with_last(cut_batches(read_samples(shard, max_sample_bytes), batch_size))
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
    failure: str | None = None,
) -> pa.Table:
    columns = {name: [getattr(sample, name) for sample in samples] for name in SAMPLE.names}
    arrays = [pa.array(columns[field.name], field.type) for field in SAMPLE]
    nested = pa.ListArray.from_arrays([0, len(samples)], pa.StructArray.from_arrays(arrays, fields=list(SAMPLE)))
    size, etag = version if n_samples is not None else (None, None)
    values = [[shard], [first_index], nested, [n_samples], [size], [etag], [time.perf_counter() - started], [failure]]
    return pa.table(values, schema=BATCHES)
