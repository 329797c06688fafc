"""Samples of a zip archive, put together as those of a tar.

The members are read in the order of their names: a zip has a table of them, in any order, and members of a sample must
be neighbours.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, cast

from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.sample import Sample
from pipeline.sources.tar_reader import Grouping
from pipeline.storage.files import WatchedStream
from pipeline.text import one_line, valid_unicode

# What zipfile raises for damage, a password that is not given, a compression that it does not know.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    LookupError,
)
# System folders in zips of Apple's machines.
_APPLES = "__MACOSX/"


def read_zip(stream: IO[bytes], max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Iterator[Sample]:
    """Every sample of the archive, each fault in its place, as `read_tar` gives those of a tar."""
    watched = WatchedStream(stream)
    grouping = Grouping(max_sample_bytes)
    try:
        archive = zipfile.ZipFile(cast("IO[bytes]", watched))
    except _DAMAGE as error:
        watched.raise_failure()
        grouping.stop(one_line(error), "zip archive")
    else:
        for info in _files(archive):
            try:
                yield from grouping.add(_Member(archive, info))
            except _DAMAGE as error:
                watched.raise_failure()
                name = valid_unicode(info.filename)
                yield from grouping.fail(info.filename, f"{name} cannot be read: {one_line(error)}")
    yield from grouping.finish()


def count_in_zip(stream: IO[bytes], n_bytes: int, n_samples: int) -> tuple[int, int]:
    """How many samples the archive's beginning holds, `n_samples` or all, and how many bytes of the file they take.

    Args:
        n_bytes: size of the file.

    What is damaged ends the count: it is the reading's to judge.
    """
    watched = WatchedStream(stream)
    keys: set[str] = set()
    taken = 0
    try:
        for info in _files(zipfile.ZipFile(cast("IO[bytes]", watched))):
            key = info.filename.rpartition(".")[0] or info.filename
            if key not in keys and len(keys) == n_samples:
                return n_samples, max(1, taken)
            keys.add(key)
            taken += info.compress_size
    except _DAMAGE:
        watched.raise_failure()
    return len(keys), max(1, n_bytes)


def _files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    infos = (info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith(_APPLES))
    return sorted(infos, key=lambda info: info.filename)


class _Member:
    """A member of a zip, as `Grouping` takes it."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.name, self.size = info.filename, info.file_size
        self._archive, self._info = archive, info

    def isreg(self) -> bool:
        return not self.issym()

    def islnk(self) -> bool:
        return False

    def issym(self) -> bool:
        return stat.S_ISLNK(self._info.external_attr >> 16)

    def content(self) -> bytes:
        return self._archive.read(self._info)
