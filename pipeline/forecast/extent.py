"""How many images a source holds, from the beginnings of some of its shards; and these beginnings, to be labelled.

A listing tells the size of every shard. The beginning of a shard tells how many bytes a sample takes in it.
"""

from __future__ import annotations

import random
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.estimate import Estimate
from pipeline.forecast.estimate import ratio
from pipeline.sources.listing import current_version
from pipeline.sources.shard import Shard
from pipeline.sources.tar_reader import split_name
from pipeline.storage.files import WatchedStream, open_filesystem, storage_errors

# Shards differ more than their images do: rather many beginnings than long ones, but not so short that opening costs
# more than reading.
_MIN_HEAD = 50
_MIN_SHARDS = 8
_N_READERS = 16


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a shard."""

    shard: Shard
    """The shard, reduced to the samples of its beginning."""
    n_samples: int
    """Number of samples of the beginning."""
    n_bytes: int
    """Bytes that these samples take in the shard's file."""
    shard_bytes: int
    """Bytes of the whole shard."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a source holds, as far as its listing and some beginnings tell."""

    n_shards: int
    """Number of shards of the source."""
    n_bytes: int
    """Bytes of all shards. Where a listing has no sizes, each shard counts as the mean of those that were opened."""
    n_images: Estimate
    """Number of images of the source."""
    heads: list[Head]
    """The beginnings of the shards that were opened."""

    @property
    def n_sampled(self) -> int:
        """Number of samples in all beginnings."""
        return sum(head.n_samples for head in self.heads)

    @property
    def is_whole(self) -> bool:
        """Whether the beginnings are the whole source."""
        return _are_whole(self.heads, self.n_shards)


def measure_extent(shards: Sequence[Shard], n_images: int, seed: int) -> Extent:
    """Looks into shards drawn at random.

    Args:
        n_images: how many samples the beginnings have together, at least; fewer where the source has no more.

    Raises StorageError where a shard cannot be read.
    """
    n_drawn = min(len(shards), max(_MIN_SHARDS, n_images // _MIN_HEAD))
    drawn = sorted(random.Random(seed).sample(list(shards), n_drawn), key=lambda shard: shard.name)
    n_each = -(-n_images // n_drawn)
    with ThreadPoolExecutor(_N_READERS) as pool:
        heads = list(pool.map(lambda shard: read_head(shard, n_each), drawn))
    return estimate_extent(shards, heads)


def estimate_extent(shards: Sequence[Shard], heads: list[Head]) -> Extent:
    """The number of images, from the bytes of all shards and the samples a byte of the beginnings."""
    if all(shard.kind == "folder" for shard in shards):
        n_files = sum(len(shard.files) for shard in shards)
        return Extent(len(shards), sum(shard.size or 0 for shard in shards), Estimate(n_files, n_files, n_files), heads)
    sizes = [shard.size for shard in shards if shard.size is not None]
    n_known = len(sizes) == len(shards)
    n_bytes = sum(sizes) if n_known else round(sum(head.shard_bytes for head in heads) / len(heads) * len(shards))
    samples, bytes_read = [head.n_samples for head in heads], [head.n_bytes for head in heads]
    # Even where every shard was looked into, what lies behind its beginning was not.
    a_byte = ratio(samples, bytes_read, share_seen=1.0 if _are_whole(heads, len(shards)) else sum(bytes_read) / n_bytes)
    return Extent(len(shards), n_bytes, a_byte.times(n_bytes), heads)


def _are_whole(heads: list[Head], n_shards: int) -> bool:
    return len(heads) == n_shards and all(head.n_bytes >= head.shard_bytes for head in heads)


def read_head(shard: Shard, n_samples: int) -> Head:
    """The beginning of a shard.

    Args:
        n_samples: how many samples it has at most.

    Raises StorageError where the shard cannot be read.
    """
    if shard.kind == "folder":
        files = shard.files[:n_samples]
        n_bytes = sum(file.version.size for file in files)
        return Head(replace(shard, files=files, size=n_bytes), len(files), n_bytes, shard.size or 0)
    with storage_errors(f"read shard {shard.name} ({shard.url})"):
        filesystem, path = open_filesystem(shard.url)
        size = shard.size or current_version(filesystem, path)[0] or 0
        # Headers lie among the images: of a tar pieces are read ahead, but not as large ones as for its images.
        with filesystem.open(path, "rb", cache_type="readahead" if shard.kind == "tar" else "none") as stream:
            count = _count_in_tar if shard.kind == "tar" else _count_in_parquet
            n_found, n_bytes = count(stream, size, n_samples)
    # A file without samples is one row.
    return Head(replace(shard, wanted=tuple(range(max(1, n_found)))), max(1, n_found), n_bytes, size)


def _count_in_tar(stream: IO[bytes], size: int, n_samples: int) -> tuple[int, int]:
    """How many samples there are before the next, and how many bytes of the file they take."""
    n_found, last = 0, ""
    watched = WatchedStream(stream)
    try:
        with tarfile.open(fileobj=watched, mode="r:*") as archive:
            for member in archive:
                key, suffix = split_name(member.name)
                if not member.isfile() or not suffix or key == last:
                    continue
                if n_found == n_samples:
                    # Of a compressed archive the place in its file, a little behind the member.
                    is_plain = archive.fileobj is watched
                    return n_found, max(1, member.offset if is_plain else stream.tell())
                n_found, last = n_found + 1, key
    except (tarfile.TarError, EOFError, OSError, ValueError):
        if watched.failure is not None:
            raise watched.failure from None
        # What is damaged is the labelling's to judge.
    return n_found, max(1, size)


def _count_in_parquet(stream: Any, size: int, n_samples: int) -> tuple[int, int]:
    """As for a tar; a Parquet file says how many rows it has."""
    watched = WatchedStream(stream)
    try:
        n_rows = pq.ParquetFile(watched).metadata.num_rows
    except (pa.ArrowException, OSError):
        if watched.failure is not None:
            raise watched.failure from None
        n_rows = 1
    n_found = min(n_rows, n_samples)
    return n_found, max(1, round(size * n_found / max(1, n_rows)))
