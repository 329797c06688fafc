"""Samples of a WebDataset tar.

WebDataset's naming rule groups members into samples. The package's reader is not used: it stops at the first fault and
loses every readable sample behind it (and with a truncated archive those before it); here each fault becomes one row,
and reading goes on behind a damaged header at the next good one. Nor is its name splitting: importing it loads torch,
seconds and 200 MB in every process that reads.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from pipeline.settings.limits import MAX_SAMPLE_BYTES, MAX_SIDE_FILE_BYTES
from pipeline.sources.sample import IMAGE_SUFFIXES, Sample, fault, make_sample, too_large
from pipeline.sources.tar_archive import DAMAGE, Gap, Member, read_members
from pipeline.storage.files import WatchedStream
from pipeline.text import one_line, valid_unicode

_SIDE_SUFFIXES = frozenset({"txt", "json"})


@dataclass(slots=True)
class _Group:
    """Members of one key, in the order they stand in the archive."""

    key: str
    images: list[bytes] = field(default_factory=list)
    side_files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Sample] = field(default_factory=list)
    """The rows of images that cannot be labelled."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with side files that are left out."""
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
    grouping = _Grouping(max_sample_bytes)
    try:
        for found in read_members(watched):
            if isinstance(found, Gap):
                grouping.skip(found)
            else:
                yield from grouping.add(found)
    except DAMAGE as error:
        watched.raise_failure()
        grouping.stop(one_line(error))
    yield from grouping.finish()


class _Grouping:
    """Puts members together to samples."""

    def __init__(self, max_sample_bytes: int) -> None:
        self._max_sample_bytes = max_sample_bytes
        self._labelled: set[int] = set()
        self._group: _Group | None = None
        self._gaps: list[Sample] = []
        """Rows of gaps within or behind the group."""
        self._is_behind_gap = False
        self._is_empty = True

    def add(self, member: Member) -> Iterator[Sample]:
        """Takes the next member; yields the rows of the sample that ends before it."""
        name = valid_unicode(member.name)
        key, suffix = split_name(name)
        if not key or not suffix or not (member.isreg() or member.islnk() or member.issym()):
            return
        if self._group is None or key != self._group.key:
            yield from self._end_group()
        if self._group is None:
            self._group = _Group(key, is_beside_gap=self._is_behind_gap)
        self._is_empty = self._is_behind_gap = False
        self._group.names.append(name)
        _add_member(self._group, member, suffix.lower(), self._max_sample_bytes)

    def skip(self, gap: Gap) -> None:
        """Notes what could not be read in front of the next member, or of the end."""
        until = "its end" if gap.end is None else f"byte {gap.end}"
        message = f"from byte {gap.start} to {until} the archive holds no readable member: {gap.reason}"
        self._note_gap(message, gap.reason if gap.end is None else None)

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


def _add_member(group: _Group, member: Member, suffix: str, max_sample_bytes: int) -> None:
    name = group.names[-1]
    link = "" if member.isreg() else f"{name} is a link; expected a regular file"
    if suffix in IMAGE_SUFFIXES:
        if link:
            group.faults.append(fault(group.key, "LinkMember", link))
        elif member.size > max_sample_bytes:
            group.faults.append(too_large(group.key, name, member.size, max_sample_bytes))
        else:
            group.images.append(member.content())
    elif suffix in _SIDE_SUFFIXES:
        if link or member.size > MAX_SIDE_FILE_BYTES:
            too_long = f"{name} has {member.size} bytes; the limit is {MAX_SIDE_FILE_BYTES}"
            group.problems.append(link or too_long)
        else:
            group.side_files.setdefault(suffix, member.content())


def count_in_tar(stream: IO[bytes], n_bytes: int, n_samples: int) -> tuple[int, int]:
    """How many samples the archive's beginning holds, `n_samples` or all, and how many bytes of the file they take.

    Args:
        n_bytes: size of the file.

    What is damaged ends the count: it is the reading's to judge.
    """
    n_found, last = 0, ""
    watched = WatchedStream(stream)
    try:
        with tarfile.open(fileobj=watched, mode="r:*") as archive:
            for member in archive:
                key, suffix = split_name(member.name)
                if not member.isfile() or not suffix or key == last:
                    continue
                if n_found == n_samples:
                    # In a compressed archive the position in the file, a little behind the member.
                    is_plain = archive.fileobj is watched
                    return n_found, max(1, member.offset if is_plain else stream.tell())
                n_found, last = n_found + 1, key
    except (tarfile.TarError, EOFError, OSError, ValueError):
        watched.raise_failure()
    return n_found, max(1, n_bytes)
