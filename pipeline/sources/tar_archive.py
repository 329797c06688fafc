"""Members of a tar archive, read on behind damage.

`tarfile` ends an archive at the first damaged header, and often without a word. It offers one place to intervene: for
each member it calls `TarInfo.fromtarfile`, and what it does next depends on the error that this raises. With
`ignore_zeros` it answers InvalidHeaderError and EOFHeaderError (an end marker) by looking at the next block of 512
bytes, EmptyHeaderError and TruncatedHeaderError by ending the archive. `Member.fromtarfile` raises the one that leads
on, and notes where the blocks began that are no member.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Self

import pyarrow as pa

from pipeline.storage.files import WatchedStream
from pipeline.text import one_line, valid_unicode

# What tarfile and the decompressors raise for damage; `WatchedStream` tells it from an OSError of the storage.
DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)
# What tarfile raises for a header that makes no sense.
_BAD_HEADER = (tarfile.HeaderError, ValueError, LookupError, OverflowError, RecursionError)
# The storage is read in large pieces, tarfile gets small ones: it copies what is left of a piece at each read.
_BUFFER_BYTES = 1 << 20
_PIECE_BYTES = 32 << 10
# More than any header that names a member needs, and any member can have: a forged header must not exhaust memory or
# keep a reader busy for ever.
_MAX_EXTENDED_HEADER_BYTES = 1 << 20
_MAX_HEADERS_BYTES = 4 << 20
_MAX_MEMBER_BYTES = 1 << 40
_MAX_READS_AT_END = 100
_MAGIC_BYTES = 10
# What Python decompresses from 3.14 on, and what it does not.
_CODECS_OF_ARROW = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
_EXTENDED_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


class ArchiveDamagedError(tarfile.ReadError):
    """An archive that cannot be read on."""


class Gap(NamedTuple):
    """A stretch of an archive in which no member could be read. Offsets are bytes of the decompressed archive."""

    start: int
    end: int | None
    """Where the next member begins; None where there is none any more."""
    reason: str


def read_members(watched: WatchedStream) -> Iterator[Member | Gap]:
    """The members of an archive in order, and the gaps between them.

    A member's content must be read before the next member is asked for. Compression is told by the content. Archives
    may be concatenated. Raises one of `DAMAGE` where the archive cannot be read on, or where the storage fails.
    """
    with _Archive.open(
        fileobj=decompressed(watched), mode="r|", bufsize=_PIECE_BYTES, tarinfo=Member, ignore_zeros=True
    ) as archive:
        for member in archive:
            # TarFile keeps every member it has seen: 12 MB per 100,000.
            archive.members.clear()  # type: ignore[attr-defined]
            if archive.bad_block is not None:
                yield archive.end_gap(member.offset)
            assert isinstance(member, Member)
            yield member
        if archive.bad_block is not None:
            yield archive.end_gap(None)


class _Archive(tarfile.TarFile):
    """An archive with what was seen since its last member.

    Attributes: `marker_seen`, whether the last block was an end marker; `bad_block`, offset in bytes and fault of the
    first block that is no member.
    """

    marker_seen = False
    bad_block: tuple[int, str] | None = None

    def note_bad_block(self, offset: int, reason: str) -> None:
        self.marker_seen = False
        if self.bad_block is None:
            self.bad_block = (offset, reason)

    def check_end(self, offset: int) -> None:
        """Raises ArchiveDamagedError where an archive that ends here was probably cut."""
        if offset and self.bad_block is None and not self.marker_seen:
            raise ArchiveDamagedError(f"it stops at byte {offset} without an end marker and may be cut") from None

    def end_gap(self, end: int | None) -> Gap:
        assert self.bad_block is not None
        (start, reason), self.bad_block = self.bad_block, None
        return Gap(start, end, reason)


class Member(tarfile.TarInfo):
    """A member, whose header tells of damage where tarfile would end the archive without a word."""

    archive: _Archive

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        assert isinstance(archive, _Archive)
        offset = archive.fileobj.tell()
        try:
            with _bounded_headers(archive):
                member = super().fromtarfile(archive)
            _check_size(member)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            archive.marker_seen = True
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
            archive.check_end(offset)
            raise
        except _BAD_HEADER as error:
            archive.note_bad_block(offset, one_line(error))
            raise tarfile.InvalidHeaderError(str(error)) from error  # type: ignore[attr-defined]
        archive.marker_seen = False
        member.archive = archive
        return member

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        # Before tarfile reads on by the size that an extended header claims.
        member = super().frombuf(buf, encoding, errors)
        _check_size(member)
        return member

    def content(self) -> bytes:
        """The member's bytes. Raises ArchiveDamagedError where the archive holds fewer than its header says."""
        extracted = self.archive.extractfile(self)
        data = extracted.read() if extracted is not None else b""
        if len(data) != self.size:
            raise ArchiveDamagedError(f"{valid_unicode(self.name)} ends after {len(data)} of {self.size} bytes")
        return data


def _check_size(member: tarfile.TarInfo) -> None:
    limit = _MAX_EXTENDED_HEADER_BYTES if member.type in _EXTENDED_HEADERS else _MAX_MEMBER_BYTES
    if not 0 <= member.size <= limit:
        raise tarfile.InvalidHeaderError(f"a header claims {member.size} bytes")  # type: ignore[attr-defined]


@contextlib.contextmanager
def _bounded_headers(archive: tarfile.TarFile) -> Iterator[None]:
    """Bounds how much is read for the headers of one member: tarfile follows a sparse file's map wherever it leads."""
    stream = archive.fileobj
    archive.fileobj = _HeaderStream(stream)  # type: ignore[assignment]
    try:
        yield
    finally:
        archive.fileobj = stream


class _HeaderStream:
    """An archive's stream while the headers of one member are read."""

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


def is_plain_tar(watched: WatchedStream) -> bool:
    """Whether an archive, which has to be at its beginning and stays there, is not compressed."""
    start = watched.read(_MAGIC_BYTES) or b""
    watched.seek(0)
    return _opener_of(start) is None


def decompressed(watched: WatchedStream, buffer_bytes: int | None = None) -> Any:
    """The archive's own bytes, whatever it is compressed with and however it is named.

    Args:
        buffer_bytes: how much is read ahead; by default as much as makes reading fast.

    tarfile would take the first of several compressed parts, as parallel compressors write them, for the whole.
    """
    stream = io.BufferedReader(watched, buffer_bytes or _BUFFER_BYTES)
    opener = _opener_of(stream.peek(_MAGIC_BYTES))
    return _Chunks(stream if opener is None else opener(stream))


def _opener_of(start: bytes) -> Callable[[Any], Any] | None:
    """What decompresses a stream that begins so; None for one that is not compressed."""
    if start.startswith(b"\x1f\x8b"):
        return lambda stream: gzip.GzipFile(fileobj=stream)
    if start.startswith(b"BZh") and start[4:10] == b"1AY&SY":
        return bz2.BZ2File
    if start.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00\x80")):
        return lzma.LZMAFile
    for magic, codec in _CODECS_OF_ARROW.items():
        if start.startswith(magic):
            return partial(_opened_by_arrow, codec=codec)
    return None


def _opened_by_arrow(stream: Any, codec: str) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec)


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
