"""Reads a shard of any kind: its samples, its version, its beginning.

A kind has one reader, and nobody else asks for the kind: archives and Parquet files are opened and decoded, an image
folder keeps each sample in files of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import IO, Protocol

from pipeline.sources.image_folder import read_files
from pipeline.sources.listing import current_version
from pipeline.sources.parquet_reader import count_in_parquet, read_parquet
from pipeline.sources.sample import Sample, fault
from pipeline.sources.shard import ColumnNames, Shard, ShardKind, kind_of_file
from pipeline.sources.tar_reader import count_in_tar, read_tar
from pipeline.sources.zip_reader import count_in_zip, read_zip
from pipeline.storage.files import Filesystem, is_gone, open_filesystem, storage_errors

_READ_AHEAD_BYTES = 8 << 20
_NOBODYS_KEY = "\0"


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a shard."""

    shard: Shard
    """The shard with no other samples than those of the beginning."""
    n_samples: int
    """Number of samples of the beginning."""
    n_bytes: int
    """Bytes that these samples take in the shard's file."""
    shard_bytes: int
    """Bytes of the whole shard."""


def read_samples(shard: Shard, max_sample_bytes: int) -> Iterator[Sample]:
    """A shard's samples in order, or those of them that are wanted; faults are samples without an image.

    An image of more than `max_sample_bytes` is a fault. Raises what the storage raises where it fails.
    """
    return _READERS[shard.kind].samples(shard, max_sample_bytes)


def read_version(shard: Shard) -> tuple[int | None, str | None]:
    """Size in bytes and etag of a shard at this moment. Raises FileNotFoundError where it is gone."""
    return _READERS[shard.kind].version(shard)


def read_head(shard: Shard, n_samples: int) -> Head:
    """The first samples of a shard, at most `n_samples`. Raises StorageError where the shard cannot be read."""
    with storage_errors(f"read shard {shard.name} ({shard.url})"):
        return _READERS[shard.kind].head(shard, n_samples)


def open_if_exists(filesystem: Filesystem, path: str, columns: ColumnNames | None = None) -> OpenFile | None:
    """A shard's file by its path; None where there is none. A file of another suffix is read as a tar.

    Args:
        columns: what the columns of a Parquet file are, where that was asked for.
    """
    reader = _FILE_READERS[kind_of_file(path) or "tar"]
    try:
        return reader.open(filesystem, path, path, columns or ColumnNames())
    except (OSError, ValueError) as error:
        if is_gone(error):
            return None
        raise


class _ShardReader(Protocol):
    """What is done with shards of one kind; the functions above describe it."""

    def samples(self, shard: Shard, max_sample_bytes: int) -> Iterator[Sample]: ...

    def version(self, shard: Shard) -> tuple[int | None, str | None]: ...

    def head(self, shard: Shard, n_samples: int) -> Head: ...


@dataclass(frozen=True, slots=True)
class _FileReader:
    """Reads shards that are one file."""

    cache_type: str
    """How fsspec reads ahead."""
    decode: Callable[..., Iterator[Sample]]
    """Samples of a stream, given what messages call the file, and the largest image in bytes."""
    count: Callable[[IO[bytes], int, int], tuple[int, int]]
    """Samples at a stream's beginning and the bytes that they take, given the stream's bytes and how many samples."""
    has_columns: bool = False
    """Whether `decode` takes `columns`, too."""

    def open(self, filesystem: Filesystem, path: str, name: str, columns: ColumnNames) -> OpenFile:
        stream = filesystem.open(path, "rb", block_size=_READ_AHEAD_BYTES, cache_type=self.cache_type)
        return OpenFile(stream, name, partial(self.decode, columns=columns) if self.has_columns else self.decode)

    def samples(self, shard: Shard, max_sample_bytes: int) -> Iterator[Sample]:
        with self.open(*open_filesystem(shard.url), shard.url, shard.columns) as file:
            samples = file.samples(max_sample_bytes)
            if shard.wanted is None:
                yield from samples
                return
            if shard.wanted_keys:
                yield from _find_again(samples, dict(zip(shard.wanted, shard.wanted_keys, strict=True)))
                return
            wanted = set(shard.wanted)
            for index, sample in enumerate(islice(samples, max(wanted) + 1)):
                if index in wanted:
                    yield sample

    def version(self, shard: Shard) -> tuple[int | None, str | None]:
        return current_version(*open_filesystem(shard.url))

    def head(self, shard: Shard, n_samples: int) -> Head:
        filesystem, path = open_filesystem(shard.url)
        n_bytes = shard.size or current_version(filesystem, path)[0] or 0
        # Headers lie among the images: pieces are read ahead, but not as large ones as for the images.
        with filesystem.open(path, "rb", cache_type=self.cache_type) as stream:
            n_found, n_bytes_read = self.count(stream, n_bytes, n_samples)
        # A file without samples is read as one row.
        n_found = max(1, n_found)
        return Head(replace(shard, wanted=tuple(range(n_found))), n_found, n_bytes_read, n_bytes)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open archive or Parquet file."""

    stream: IO[bytes]
    name: str
    """What messages call it."""
    decode: Callable[[IO[bytes], str, int], Iterator[Sample]]

    def samples(self, max_sample_bytes: int) -> Iterator[Sample]:
        """All samples in order; images of more than `max_sample_bytes` are faults."""
        return self.decode(self.stream, self.name, max_sample_bytes)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()


class _FolderReader:
    """Reads shards that are files of an image folder."""

    def samples(self, shard: Shard, max_sample_bytes: int) -> Iterator[Sample]:
        filesystem, folder = open_filesystem(shard.url)
        # `files` holds no others than the wanted ones.
        return read_files(filesystem, folder, shard.files, max_sample_bytes)

    def version(self, shard: Shard) -> tuple[int | None, str | None]:
        """As it was listed: a file that changed since is found when the folder is listed again."""
        return shard.size, shard.etag

    def head(self, shard: Shard, n_samples: int) -> Head:
        files = shard.files[:n_samples]
        n_bytes = sum(file.version.size for file in files)
        return Head(replace(shard, files=files, size=n_bytes), len(files), n_bytes, shard.size or 0)


def _find_again(samples: Iterator[Sample], wanted: dict[int, str]) -> Iterator[Sample]:
    """The wanted samples, given by the index and the key that they had; one each, in order, but for the last ones.

    Another version of this package may have found fewer samples in front of one. So it may stand further behind: by its
    key. What is not there any more is a fault whose key is nobody's.
    """
    places = {index: place for place, index in enumerate(wanted)}
    moved: dict[str, int] = {}
    n_given = 0
    for index, sample in enumerate(samples):
        place = places.get(index)
        if place is not None and not _is_named(sample.key, wanted[index]):
            moved[wanted[index]] = place
            place = None
        if place is None:
            place = moved.pop(sample.key, None)
        if place is not None and place >= n_given:
            yield from (fault(_NOBODYS_KEY, "SampleGone", "it is not there any more") for _ in range(place - n_given))
            yield sample
            n_given = place + 1
        if n_given == len(wanted):
            return


def _is_named(key: str, former: str) -> bool:
    """Whether a key is the former one, or one that another image's key was made into: `x~2`."""
    return key == former or (key.startswith(f"{former}~") and key[len(former) + 1 :].isdigit())


def _decode_zip(stream: IO[bytes], name: str, max_sample_bytes: int) -> Iterator[Sample]:
    return read_zip(stream, max_sample_bytes)


def _decode_tar(stream: IO[bytes], name: str, max_sample_bytes: int) -> Iterator[Sample]:
    return read_tar(stream, max_sample_bytes)


_FILE_READERS = {
    # Read from front to back.
    "tar": _FileReader("readahead", _decode_tar, count_in_tar),
    # Jumps to its table of members first.
    "zip": _FileReader("bytes", _decode_zip, count_in_zip),
    # Jumps to its footer and between columns.
    "parquet": _FileReader("none", read_parquet, count_in_parquet, has_columns=True),
}
_READERS: Mapping[ShardKind, _ShardReader] = {
    "tar": _FILE_READERS["tar"],
    "zip": _FILE_READERS["zip"],
    "parquet": _FILE_READERS["parquet"],
    "folder": _FolderReader(),
}
