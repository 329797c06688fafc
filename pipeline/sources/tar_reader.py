"""Samples of a WebDataset tar.

WebDataset's naming rule groups members into samples. The package's reader is not used: it stops at the first fault and
loses every readable sample behind it (and with a truncated archive those before it); here each fault becomes one row,
and reading goes on behind a damaged header at the next good one. Nor is its name splitting: importing it loads torch,
seconds and 200 MB in every process that reads.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple, Self

from pipeline.settings.limits import MAX_SAMPLE_BYTES, MAX_SIDE_FILE_BYTES
from pipeline.sources.sample import IMAGE_SUFFIXES, Sample, fault, make_sample, too_large
from pipeline.storage.files import WatchedStream
from pipeline.text import one_line, printable

_SIDE_SUFFIXES = frozenset({"txt", "json"})
# The storage is read in large pieces, tarfile gets small ones: it copies what is left of a piece at each read.
_BUFFER_BYTES = 1 << 20
_PIECE_BYTES = 32 << 10
# More than any header that names a member needs, and any member can have: a forged header must not exhaust memory or
# keep a reader busy for ever.
_MAX_EXTENDED_HEADER_BYTES = 1 << 20
_MAX_HEADERS_BYTES = 4 << 20
_MAX_MEMBER_BYTES = 1 << 40
_MAX_READS_AT_END = 100
_EXTENDED_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
# What tarfile and the decompressors raise for damage; `WatchedStream` tells it from an OSError of the storage.
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)
# What tarfile raises for a header that makes no sense.
_BAD_HEADER = (tarfile.HeaderError, ValueError, LookupError, OverflowError, RecursionError)


class ArchiveDamagedError(tarfile.ReadError):
    """An archive that cannot be read on."""


class _Gap(NamedTuple):
    """A place where no member could be read."""

    offset: int
    reason: str


class _Archive(tarfile.TarFile):
    """An archive that is read over damaged headers, and over end markers: tars may be concatenated.

    Attributes: `marker_seen`, whether the last block was an end marker; `gap`, where the blocks that are no members
    began.
    """

    marker_seen = False
    gap: _Gap | None = None

    def take_gap(self) -> _Gap | None:
        gap, self.gap = self.gap, None
        return gap


class _Header(tarfile.TarInfo):
    """Tells of a damaged header, where tarfile ends the archive without a word."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        assert isinstance(archive, _Archive)
        offset = archive.fileobj.tell()
        try:
            with _bounded_headers(archive):
                header = super().fromtarfile(archive)
            _check_size(header)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            archive.marker_seen = True
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
            if offset and archive.gap is None and not archive.marker_seen:
                message = f"it stops at byte {offset} without an end marker and may be cut"
                raise ArchiveDamagedError(message) from None
            raise
        except _BAD_HEADER as error:
            archive.gap = archive.gap or _Gap(offset, one_line(error))
            archive.marker_seen = False
            # tarfile goes on with the next block.
            raise tarfile.InvalidHeaderError(str(error)) from error  # type: ignore[attr-defined]
        archive.marker_seen = False
        return header

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        _check_size(header)
        return header


class _HeaderStream:
    """The archive's stream as long as the headers of one member are read, which may not go on without end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = _MAX_HEADERS_BYTES
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise tarfile.InvalidHeaderError(f"the headers of a member go on for {_MAX_HEADERS_BYTES} bytes")  # type: ignore[attr-defined]
        data: bytes = self._stream.read(size)
        return data


@contextlib.contextmanager
def _bounded_headers(archive: tarfile.TarFile) -> Iterator[None]:
    """tarfile follows the map of a sparse file to wherever it leads."""
    stream = archive.fileobj
    archive.fileobj = _HeaderStream(stream)  # type: ignore[assignment]
    try:
        yield
    finally:
        archive.fileobj = stream


@dataclass(slots=True)
class _Group:
    """Members of one key, in the order they stand in the archive."""

    key: str
    images: list[bytes] = field(default_factory=list)
    side_files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Sample] = field(default_factory=list)
    """Of images."""
    problems: list[str] = field(default_factory=list)
    """Of side files."""
    names: list[str] = field(default_factory=list)
    is_beside_gap: bool = False


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member: what is before and behind the first dot of its file name.

    Both are empty for hidden files and for files without a dot.
    """
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return (folder + slash + stem, suffix) if stem and suffix else ("", "")


def read_tar(stream: IO[bytes], max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Iterator[Sample]:
    """Every sample of the archive in order, each fault in its place.

    A sample is the run of members that share a key (the path up to the first dot of the file name); hidden files, and
    files without a suffix, belong to none. Never raises for damage: what cannot be read is a fault row of empty key,
    and an image larger than `max_sample_bytes` one of its own.
    """
    watched = WatchedStream(stream)
    reader = _Reader(max_sample_bytes)
    try:
        content = _decompressed(watched)
        with _Archive.open(
            fileobj=content, mode="r|", bufsize=_PIECE_BYTES, tarinfo=_Header, ignore_zeros=True
        ) as archive:
            for member in archive:
                # TarFile keeps every member it has seen: 12 MB per 100,000.
                archive.members.clear()  # type: ignore[attr-defined]
                reader.skip(archive.take_gap(), member.offset)
                yield from reader.add(archive, member)
            reader.skip(archive.take_gap(), None)
    except _DAMAGE as error:
        if watched.failure is not None:
            raise watched.failure from None
        reader.stop(one_line(error))
    yield from reader.finish()


class _Reader:
    """Puts members together to samples."""

    def __init__(self, max_sample_bytes: int) -> None:
        self._max_sample_bytes = max_sample_bytes
        self._labelled: set[int] = set()
        self._group: _Group | None = None
        self._gaps: list[Sample] = []
        """Rows of gaps within or behind the group."""
        self._is_behind_gap = False
        self._is_empty = True

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[Sample]:
        """Takes the next member; yields the rows of the sample that ends before it."""
        name = printable(member.name)
        key, suffix = split_name(name)
        if not key or not suffix or not (member.isreg() or member.islnk() or member.issym()):
            return
        if self._group is None or key != self._group.key:
            yield from self._end_group()
        if self._group is None:
            self._group = _Group(key, is_beside_gap=self._is_behind_gap)
        self._is_empty = self._is_behind_gap = False
        self._group.names.append(name)
        _add_member(self._group, archive, member, suffix.lower(), self._max_sample_bytes)

    def skip(self, gap: _Gap | None, end: int | None) -> None:
        """Notes what could not be read in front of the member that begins at `end`."""
        if gap is None:
            return
        until = "its end" if end is None else f"byte {end}"
        message = f"from byte {gap.offset} to {until} the archive holds no readable member: {gap.reason}"
        self._note_gap(message, gap.reason if end is None else None)

    def stop(self, reason: str) -> None:
        """Notes that the archive cannot be read on."""
        self._note_gap(f"the archive cannot be read on: {reason}", reason)

    def finish(self) -> Iterator[Sample]:
        """The rows of the last sample."""
        if self._is_empty and not self._gaps:
            yield fault("", "EmptyShard", "the archive holds no samples")
        yield from self._end_group()

    def _note_gap(self, message: str, reason_at_end: str | None) -> None:
        """Adds a gap's row, behind the group in which it lies."""
        if self._is_empty and reason_at_end is not None:
            self._gaps.append(fault("", "ArchiveUnreadable", f"not a readable tar archive: {reason_at_end}"))
            return
        last_seen = "" if self._group is None else f"; the last sample in front of it is {self._group.key!r}"
        self._gaps.append(fault("", "ArchiveDamaged", message + last_seen))
        self._is_behind_gap = True
        if self._group is not None:
            self._group.is_beside_gap = True

    def _end_group(self) -> Iterator[Sample]:
        """The rows of the group and of the gaps in it."""
        if self._group is not None:
            yield from self._rows(self._group)
        yield from self._gaps
        self._group, self._gaps = None, []

    def _rows(self, group: _Group) -> Iterator[Sample]:
        """The rows of a complete group: its sample, then one row for each image too many, then its faults."""
        key, known = group.key, hash(group.key)
        names = ", ".join(group.names[:6])
        for data in group.images:
            if known in self._labelled:
                yield fault(key, "DuplicateKey", f"the key has an image already; this one is left out ({names})")
                continue
            self._labelled.add(known)
            text, description = group.side_files.get("txt"), group.side_files.get("json")
            yield make_sample(key, data, text, description, group.problems)
        yield from group.faults
        # The image of a group beside a gap is lost in it: the gap's row stands for it.
        if group.images or group.faults or group.is_beside_gap:
            return
        if known in self._labelled:
            message = f"{names} came after the sample of this key was complete; members of a sample must be neighbours"
            yield fault(key, "SplitSample", message)
        else:
            yield fault(key, "NoImage", f"the sample holds no image, only {names}")


def _add_member(
    group: _Group, archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, max_sample_bytes: int
) -> None:
    name = group.names[-1]
    link = "" if member.isreg() else f"{name} is a link; expected a regular file"
    if suffix in IMAGE_SUFFIXES:
        if link:
            group.faults.append(fault(group.key, "LinkMember", link))
        elif member.size > max_sample_bytes:
            group.faults.append(too_large(group.key, name, member.size, max_sample_bytes))
        else:
            group.images.append(_content(archive, member))
    elif suffix in _SIDE_SUFFIXES:
        if link or member.size > MAX_SIDE_FILE_BYTES:
            too_long = f"{name} has {member.size} bytes; the limit is {MAX_SIDE_FILE_BYTES}"
            group.problems.append(link or too_long)
        else:
            group.side_files.setdefault(suffix, _content(archive, member))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    extracted = archive.extractfile(member)
    data = extracted.read() if extracted is not None else b""
    if len(data) != member.size:
        raise ArchiveDamagedError(f"{printable(member.name)} ends after {len(data)} of {member.size} bytes")
    return data


class _Chunks:
    """A stream whose reads may be short: what was decompressed in front of damage is not lost with it.

    tarfile passes over a member by reading it, however far behind the end of the archive its header says that it goes;
    here reading at the end is damage, after as many times as an end is looked for.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._n_reads_at_end = 0

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read1(size)
        if not data:
            self._n_reads_at_end += 1
            if self._n_reads_at_end > _MAX_READS_AT_END:
                raise ArchiveDamagedError("unexpected end of data")
        return data


def _decompressed(watched: WatchedStream) -> Any:
    """The archive's own bytes, whatever it is compressed with and however it is named.

    tarfile would take the first of several compressed parts, as parallel compressors write them, for the whole.
    """
    stream = io.BufferedReader(watched, _BUFFER_BYTES)
    start = stream.peek(10)
    if start.startswith(b"\x1f\x8b"):
        return _Chunks(gzip.GzipFile(fileobj=stream))
    if start.startswith(b"BZh") and start[4:10] == b"1AY&SY":
        return _Chunks(bz2.BZ2File(stream))
    if start.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00\x80")):
        return _Chunks(lzma.LZMAFile(stream))
    return _Chunks(stream)


def _check_size(header: tarfile.TarInfo) -> None:
    limit = _MAX_EXTENDED_HEADER_BYTES if header.type in _EXTENDED_HEADERS else _MAX_MEMBER_BYTES
    if not 0 <= header.size <= limit:
        raise tarfile.InvalidHeaderError(f"a header claims {header.size} bytes")  # type: ignore[attr-defined]
