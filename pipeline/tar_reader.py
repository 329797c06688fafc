"""Samples of a WebDataset tar.

webdataset's naming rule groups members into samples. Its reader is not used: it stops at the first fault and loses
every readable sample behind it (and with a truncated archive those before it); here each fault becomes one row.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Self

from webdataset.tariterators import base_plus_ext

from pipeline.sample import IMAGE_SUFFIXES, MAX_SAMPLE_BYTES, Sample, fault, make_sample, printable

_SIDE_SUFFIXES = frozenset({"txt", "json"})
_MAX_SIDE_FILE_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 20
# Not OSError: a storage that fails is no property of the archive, and reading it again may succeed.
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError)


class ArchiveDamagedError(tarfile.ReadError):
    """A header that tarfile would silently take for the end of the archive."""


class _StrictTarInfo(tarfile.TarInfo):
    """Reports a damaged header in the middle of an archive, where tarfile ends the iteration without a word."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            if archive.offset == 0:
                raise
            raise ArchiveDamagedError(_damage_message(error, archive.offset)) from error


@dataclass(slots=True)
class _Group:
    """Members of one key, in the order they stand in the archive."""

    key: str
    images: list[bytes] = field(default_factory=list)
    side_files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Sample] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def read_tar(stream: IO[bytes]) -> Iterator[Sample]:
    """Every sample of the archive in order, each fault in its place.

    A sample is the run of members that share a key (the path up to the first dot of the file name). Never raises for
    damage: an archive that cannot be read on ends with a fault row of empty key.
    """
    labelled: set[int] = set()
    group: _Group | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r|*", bufsize=_BUFFER_BYTES, tarinfo=_StrictTarInfo) as archive:
            for member in archive:
                # TarFile keeps every member it has seen: 12 MB per 100,000.
                archive.members.clear()  # type: ignore[attr-defined]
                key, suffix = base_plus_ext(printable(member.name))
                if not key or not suffix or not (member.isreg() or member.islnk() or member.issym()):
                    continue
                if group is not None and key != group.key:
                    yield from _finish(group, labelled)
                    group = None
                group = group or _Group(key)
                _add_member(group, archive, member, suffix.lower())
    except _DAMAGE as error:
        # A group that has no image yet is what the damage cut off: the archive's row stands for it.
        if group is not None and group.images:
            yield from _finish(group, labelled)
        yield fault("", *_describe(error, group))
        return
    if group is not None:
        yield from _finish(group, labelled)
    else:
        yield fault("", "EmptyShard", "the archive holds no samples")


def _add_member(group: _Group, archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> None:
    name = printable(member.name)
    group.names.append(name)
    is_image = suffix in IMAGE_SUFFIXES
    if not is_image and suffix not in _SIDE_SUFFIXES:
        return
    if not member.isreg():
        group.faults.append(fault(group.key, "LinkMember", f"{name} is a link; expected a regular file"))
        return
    limit = MAX_SAMPLE_BYTES if is_image else _MAX_SIDE_FILE_BYTES
    if member.size > limit:
        message = f"{name} has {member.size} bytes; the limit is {limit}"
        group.faults.append(fault(group.key, "MemberTooLarge", message))
        return
    extracted = archive.extractfile(member)
    data = extracted.read() if extracted is not None else b""
    if len(data) != member.size:
        raise ArchiveDamagedError(f"{name} ends after {len(data)} of {member.size} bytes")
    if is_image:
        group.images.append(data)
    else:
        group.side_files.setdefault(suffix, data)


def _finish(group: _Group, labelled: set[int]) -> Iterator[Sample]:
    """The rows of a complete group: its sample, then one row for each image too many, then its faults."""
    key, known = group.key, hash(group.key)
    names = ", ".join(group.names[:6])
    for data in group.images:
        if known in labelled:
            yield fault(key, "DuplicateKey", f"the key has an image already; this one is left out ({names})")
            continue
        labelled.add(known)
        yield make_sample(key, data, group.side_files.get("txt"), group.side_files.get("json"))
    yield from group.faults
    if not group.images and not group.faults:
        if known in labelled:
            message = f"{names} came after the sample of this key was complete; members of a sample must be neighbours"
            yield fault(key, "SplitSample", message)
        else:
            yield fault(key, "NoImage", f"the sample holds no image, only {names}")


def _describe(error: BaseException, group: _Group | None) -> tuple[str, str]:
    """Error class and message of an archive that cannot be read on."""
    text = " ".join(str(error).split()) or type(error).__name__
    behind = f"; the last sample seen is {group.key!r}" if group is not None else ""
    if isinstance(error, tarfile.ReadError | EOFError) and group is None:
        return "ArchiveUnreadable", f"not a readable tar archive: {text}"
    return "ArchiveDamaged", f"the archive cannot be read on: {text}{behind}"


def _damage_message(error: Any, offset: int) -> str:
    if isinstance(error, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
        return f"it stops at byte {offset} without an end marker and may be cut"
    return f"bad member header at byte {offset} ({error})"
