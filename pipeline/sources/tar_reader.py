"""Samples of an archive in WebDataset's way: members of one key are a sample, and each image of it is a row.

WebDataset's naming rule groups members into samples. The package's reader is not used: it stops at the first fault and
loses every readable sample behind it (and with a truncated archive those before it); here each fault becomes one row,
and reading goes on behind a damaged header at the next good one. Nor is its name splitting: importing it loads torch,
seconds and 200 MB in every process that reads.

A key ends at the first dot of the file name. Where more than a suffix follows, as in `0001.left.jpg` or
`IMG_2019.05.03.jpg`, the image is a sample of its own, whose key is the name without the suffix alone.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from typing import IO, Any, Protocol

from pipeline.annotations.side_files import SIDE_SUFFIXES, TEXT_SUFFIXES, read_side_files
from pipeline.settings.limits import MAX_SAMPLE_BYTES, MAX_SIDE_FILE_BYTES
from pipeline.sources.sample import Sample, fault, is_image_suffix, looks_like_image, make_sample, too_large
from pipeline.sources.shard import kind_of_file
from pipeline.sources.tar_archive import DAMAGE, Gap, decompressed, is_plain_tar, read_members
from pipeline.storage.files import WatchedStream
from pipeline.text import one_line, valid_unicode

# What a member without a suffix may have and still be looked into.
_MIN_IMAGE_BYTES = 12
# So little that the place in a file tells what was used of it.
_LITTLE_AHEAD_BYTES = 64 << 10


class ArchiveMember(Protocol):
    """A file in an archive."""

    name: str
    size: int
    """Bytes of its content, as its header says."""

    def isreg(self) -> bool: ...

    def islnk(self) -> bool: ...

    def issym(self) -> bool: ...

    def content(self) -> bytes:
        """Its bytes. Raises what the archive raises for damage."""


@dataclass(frozen=True, slots=True)
class _Image:
    key: str
    name: str
    data: bytes


@dataclass(slots=True)
class _Group:
    """Members of one key, in the order they stand in the archive."""

    key: str
    images: list[_Image] = field(default_factory=list)
    side_files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Content of the side files by their suffix, and by their name without it."""
    faults: list[Sample] = field(default_factory=list)
    """The rows of images that cannot be labelled."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with side files that are left out."""
    names: list[str] = field(default_factory=list)
    is_beside_gap: bool = False

    def side_file(self, suffix: str, key: str) -> bytes | None:
        """The side file of an image: that of its own name, else that of the group, else the only one there is."""
        by_stem = self.side_files.get(suffix, {})
        if key == self.key:
            return by_stem.get(key)
        own = {image.key for image in self.images}
        others = [content for stem, content in by_stem.items() if stem not in own]
        only = others[0] if len(others) == 1 else None
        return by_stem.get(key, by_stem.get(self.key, only))


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member: what is before and behind the first dot of its file name.

    Both are empty for hidden files and for files without a dot.
    """
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return (folder + slash + stem, suffix) if stem and suffix else ("", "")


def read_tar(stream: IO[bytes], max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Iterator[Sample]:
    """Every sample of the archive in order, each fault in its place.

    A sample is the run of members that share a key (the path up to the first dot of the file name), or one of several
    images among them; hidden files, and files without a suffix that do not begin like an image, belong to none. Never
    raises for damage: what cannot be read is a fault row of empty key, and an image larger than `max_sample_bytes` one
    of its own.
    """
    watched = WatchedStream(stream)
    grouping = Grouping(max_sample_bytes)
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


class Grouping:
    """Puts members together to samples."""

    def __init__(self, max_sample_bytes: int) -> None:
        self._max_sample_bytes = max_sample_bytes
        self._labelled: dict[int, int] = {}
        """Hash of each key that has an image, with a hash of the image."""
        self._complete: set[int] = set()
        """Hashes of the keys of groups that had images."""
        self._group: _Group | None = None
        self._gaps: list[Sample] = []
        """Rows of gaps within or behind the group."""
        self._is_behind_gap = False
        self._is_empty = True

    def add(self, member: ArchiveMember) -> Iterator[Sample]:
        """Takes the next member; yields the rows of the sample that ends before it."""
        name = valid_unicode(member.name)
        key, suffix = split_name(name)
        if not (member.isreg() or member.islnk() or member.issym()):
            return
        bare = None if key else self._bare_image(member, name)
        if not key and bare is None:
            return
        key = key or name
        if self._group is None or key != self._group.key:
            yield from self._end_group()
        if self._group is None:
            self._group = _Group(key, is_beside_gap=self._is_behind_gap)
        self._is_empty = self._is_behind_gap = False
        self._group.names.append(name)
        if bare is not None:
            self._group.images.append(_Image(key, name, bare))
        else:
            _add_member(self._group, member, suffix, self._max_sample_bytes)

    def fail(self, name: str, message: str) -> Iterator[Sample]:
        """The row of a member that is there and cannot be read, behind those of the sample before it."""
        key, suffix = split_name(valid_unicode(name))
        if self._group is None or key != self._group.key:
            yield from self._end_group()
            self._group = _Group(key or valid_unicode(name))
        self._is_empty = False
        if is_image_suffix(suffix.rpartition(".")[2].lower()):
            own = _own_key(valid_unicode(name), key, suffix)
            self._group.faults.append(fault(own, "ArchiveDamaged", message))
        else:
            self._group.problems.append(message)

    def skip(self, gap: Gap) -> None:
        """Notes what could not be read in front of the next member, or of the end."""
        until = "its end" if gap.end is None else f"byte {gap.end}"
        message = f"from byte {gap.start} to {until} the archive holds no readable member: {gap.reason}"
        self._note_gap(message, gap.reason if gap.end is None else None)

    def stop(self, reason: str, kind: str = "tar archive") -> None:
        """Notes that the archive cannot be read on."""
        self._note_gap(f"the archive cannot be read on: {reason}", reason, kind)

    def finish(self) -> Iterator[Sample]:
        """The rows of the last sample."""
        if self._is_empty and not self._gaps:
            yield fault("", "EmptyShard", "the archive holds no samples")
        yield from self._end_group()

    def _bare_image(self, member: ArchiveMember, name: str) -> bytes | None:
        """The content of a member without a suffix, where it is an image; None for any other."""
        file = name.rpartition("/")[2]
        if "." in file or not member.isreg() or not _MIN_IMAGE_BYTES <= member.size <= self._max_sample_bytes:
            return None
        data = member.content()
        return data if looks_like_image(data) else None

    def _note_gap(self, message: str, reason_at_end: str | None, kind: str = "tar archive") -> None:
        """Adds a gap's row, behind the group in which it lies."""
        if self._is_empty and reason_at_end is not None:
            self._gaps.append(fault("", "ArchiveUnreadable", f"not a readable {kind}: {reason_at_end}"))
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
        """The rows of a complete group: one for each image, then its faults."""
        names = ", ".join(group.names[:6])
        for image in group.images:
            key = self._take_key(image)
            if key is None:
                message = f"the same image has this key already; it is left out the second time ({names})"
                yield fault(image.key, "DuplicateKey", message)
                continue
            texts = (group.side_file(suffix, image.key) for suffix in TEXT_SUFFIXES)
            text = next((content for content in texts if content is not None), None)
            description, classes = (group.side_file(suffix, image.key) for suffix in ("json", "cls"))
            yield make_sample(key, image.data, read_side_files(text, description, classes), group.problems)
        yield from group.faults
        known = hash(group.key)
        if group.images:
            self._complete.add(known)
        # The image of a group beside a gap is lost in it: the gap's row stands for it.
        if group.images or group.faults or group.is_beside_gap:
            return
        if known in self._complete:
            message = f"{names} came after the sample of this key was complete; members of a sample must be neighbours"
            yield fault(group.key, "SplitSample", message)
        else:
            within = "; archives within an archive are not read" if any(map(kind_of_file, group.names)) else ""
            yield fault(group.key, "NoImage", f"the sample holds no image, only {names}{within}")

    def _take_key(self, image: _Image) -> str | None:
        """A key that no other image has: its own, else its whole name; None for an image that has its key already."""
        content = int.from_bytes(hashlib.blake2b(image.data, digest_size=8).digest())
        for key in chain((image.key, image.name), (f"{image.name}~{number}" for number in count(2))):
            known = self._labelled.get(hash(key))
            if known is None:
                self._labelled[hash(key)] = content
                return key
            if known == content:
                return None
        raise AssertionError("count() ends never")


def _add_member(group: _Group, member: ArchiveMember, suffix: str, max_sample_bytes: int) -> None:
    name, last = group.names[-1], suffix.rpartition(".")[2].lower()
    own_key = _own_key(name, group.key, suffix)
    link = "" if member.isreg() else f"{name} is a link; expected a regular file"
    if is_image_suffix(last):
        if link:
            group.faults.append(fault(own_key, "LinkMember", link))
        elif member.size > max_sample_bytes:
            group.faults.append(too_large(own_key, name, member.size, max_sample_bytes))
        else:
            group.images.append(_Image(own_key, name, member.content()))
    elif last in SIDE_SUFFIXES:
        if link or member.size > MAX_SIDE_FILE_BYTES:
            too_long = f"{name} has {member.size} bytes; the limit is {MAX_SIDE_FILE_BYTES}"
            group.problems.append(link or too_long)
        else:
            group.side_files.setdefault(last, {}).setdefault(own_key, member.content())


def _own_key(name: str, key: str, suffix: str) -> str:
    """The key of the sample that an image is for itself: its name without the last suffix."""
    return name.rpartition(".")[0] if "." in suffix else key


def count_in_tar(stream: IO[bytes], n_bytes: int, n_samples: int) -> tuple[int, int]:
    """How many samples the archive's beginning holds, `n_samples` or all, and how many bytes of the file they take.

    Args:
        n_bytes: size of the file.

    What is damaged ends the count: it is the reading's to judge.
    """
    n_found, last, has_image = 0, "", False
    watched = WatchedStream(stream)
    try:
        is_plain = is_plain_tar(watched)
        # A plain archive is jumped through; the content of a compressed one has to be read.
        opened: dict[str, Any] = (
            {"mode": "r:", "fileobj": watched}
            if is_plain
            else {"mode": "r|", "fileobj": decompressed(watched, _LITTLE_AHEAD_BYTES)}
        )
        with tarfile.open(**opened) as archive:
            for member in archive:
                key, suffix = split_name(member.name)
                if not member.isfile() or not suffix:
                    continue
                is_image = is_image_suffix(suffix.rpartition(".")[2].lower())
                if key == last and not (is_image and has_image):
                    has_image |= is_image
                    continue
                if n_found == n_samples:
                    # In a compressed archive the position in the file, a little behind the member.
                    return n_found, max(1, member.offset if is_plain else stream.tell())
                n_found, last, has_image = n_found + 1, key, is_image
    except (tarfile.TarError, EOFError, OSError, ValueError):
        watched.raise_failure()
    return n_found, max(1, n_bytes)
