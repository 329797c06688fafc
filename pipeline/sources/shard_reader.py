"""Opens a shard of any kind and reads its samples."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import islice
from typing import IO

from pipeline.sources.image_folder import read_files
from pipeline.sources.parquet_reader import read_parquet
from pipeline.sources.sample import Sample
from pipeline.sources.shard import Shard
from pipeline.sources.tar_reader import read_tar
from pipeline.storage.files import Filesystem, open_filesystem

_GONE_ERRORS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})

_READ_AHEAD_BYTES = 8 << 20


def read_samples(shard: Shard, max_sample_bytes: int) -> Iterator[Sample]:
    samples = _all_samples(shard, max_sample_bytes)
    if shard.wanted is None or shard.kind == "folder":
        yield from samples
        return
    wanted = set(shard.wanted)
    for index, sample in enumerate(islice(samples, max(wanted) + 1)):
        if index in wanted:
            yield sample


def _all_samples(shard: Shard, max_sample_bytes: int) -> Iterator[Sample]:
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


def open_if_exists(filesystem: Filesystem, path: str) -> IO[bytes] | None:
    # Parquet jumps to its footer and between columns; a tar is read from front to back.
    cache = "none" if path.lower().endswith(".parquet") else "readahead"
    try:
        stream: IO[bytes] = filesystem.open(path, "rb", block_size=_READ_AHEAD_BYTES, cache_type=cache)
    except (OSError, ValueError) as error:
        if is_gone(error):
            return None
        raise
    return stream


def is_gone(error: Exception) -> bool:
    """Whether a path leads to no file; ValueError is Python's for one that cannot be any (it holds a null byte)."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | ValueError):
        return True
    return isinstance(error, OSError) and error.errno in _GONE_ERRORS
