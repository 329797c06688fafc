"""What a source consists of: shards, or a folder's images that are dealt to shards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, NamedTuple

from pipeline.text import valid_unicode

ShardKind = Literal["tar", "zip", "parquet", "folder"]
_TAR = re.compile(r".*(\.tar(\.(gz|bz2|xz|zst|lz4))?|\.(tgz|tbz|tbz2|txz|tzst))")
# Some writers name the codec behind the suffix. It is that of the pages within: the file is plain Parquet.
_PARQUET = re.compile(r".*\.(parquet(\.(snappy|gzip|gz|zstd|lz4|brotli))?|parq|pq)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnNames:
    """Columns of Parquet files that were asked for; None where the files themselves tell."""

    image: str | None = None
    key: str | None = None
    caption: str | None = None
    label: str | None = None

    def given(self) -> dict[str, str]:
        """The names that were asked for, by what the column is."""
        return {role: name for role, name in asdict(self).items() if name is not None}


@dataclass(frozen=True, slots=True)
class Shard:
    """One unit of reading and of commit."""

    name: str
    """Unique within the source and stable; path relative to the source's root, without `.tar` or `.parquet`."""
    url: str
    kind: ShardKind
    size: int | None = None
    etag: str | None = None
    """Changes when the shard's content does: the object store's etag, locally the modification time."""
    modified: float | None = None
    """When the file was written, or moved here if that was later, in seconds since the epoch."""
    files: tuple[ImageFile, ...] = ()
    """Which files of an image folder belong to the shard, whose `url` is the folder's; empty for other shards."""
    wanted: tuple[int, ...] | None = None
    """Indexes in the shard of the samples to read, ascending; None: all. In an image folder's shard, `files` holds
    those samples alone, and these are their indexes in the whole shard."""
    columns: ColumnNames = ColumnNames()
    """What the columns of a Parquet file are."""

    wanted_keys: tuple[str, ...] = ()
    """The keys that the wanted samples had; none where they are not known. A sample of such a key counts as well if it
    stands further behind now."""

    @property
    def is_file(self) -> bool:
        """Whether the shard is one file, an archive or a Parquet file. Otherwise it is a part of an image folder."""
        return self.kind != "folder"

    @property
    def n_listed_samples(self) -> int | None:
        """How many samples the shard has, where its listing tells: in an image folder each is a file."""
        return None if self.is_file else len(self.files)

    def reduced(self, samples: Sequence[tuple[int, str]]) -> Shard:
        """The shard with these samples only, given by index and key; of a folder those whose file still exists."""
        if self.is_file:
            indexes, keys = zip(*samples, strict=True) if samples else ((), ())
            return replace(self, wanted=indexes, wanted_keys=keys)
        files = {file.key: file for file in self.files}
        present = [(index, files[key]) for index, key in samples if key in files]
        return replace(self, wanted=tuple(index for index, _ in present), files=tuple(file for _, file in present))


@dataclass(frozen=True, slots=True)
class Source:
    """What a source was found to hold: shards, or images."""

    given: str
    """The source as messages name it."""
    root: str
    """What shard names are relative to; empty for lists, whose shards carry their whole path."""
    shards: list[Shard] = field(default_factory=list)
    images: list[ImageFile] = field(default_factory=list)
    """Images of a source that is a folder of images."""
    notes: list[str] = field(default_factory=list)
    """What else the user should know."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many files are left out, by kind: `.mp4`, `link`, ...; most first."""
    addresses: tuple[str, ...] = ()
    """The arguments that lead to the source, where there are several."""
    other: Source | None = None
    """The same files taken as the other kind of source; None where there are none of that kind."""

    def of_kind(self, is_folder: bool) -> Source | None:
        """The source as a folder of images or as shards; None where it holds nothing of that kind."""
        return self if bool(self.images) == is_folder else self.other


class FileVersion(NamedTuple):
    """What a listing tells of a file's content."""

    size: int
    etag: str | None
    """Changes when the content does."""
    modified: float
    """When the file was written, or moved here if that was later, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image below the folder, with the side files that lie next to it."""

    path: str
    """Path of the image relative to the folder."""
    version: FileVersion
    text: str | None = None
    """Path of the image's `.txt`, `.caption` or the like, relative to the folder; None without one."""
    description: str | None = None
    """Path of the image's `.json`, relative to the folder; None without one."""
    problems: tuple[str, ...] = ()
    """What is wrong with side files that are left out."""
    classes: str | None = None
    """Path of the image's `.cls`, relative to the folder; None without one."""
    captions: tuple[str, ...] = ()
    """Captions that the folder's metadata lists."""
    labels: tuple[str, ...] = ()
    """Labels that the folder's metadata lists."""

    @property
    def side_files(self) -> list[str]:
        """Paths of all its side files, relative to the folder."""
        return [path for path in (self.text, self.description, self.classes) if path is not None]

    @property
    def key(self) -> str:
        """The sample's key: the path with its suffix, as valid Unicode."""
        return valid_unicode(self.path)


def add_sizes(shards: Iterable[Shard]) -> int | None:
    """Bytes of all these shards; None where the listing does not know the size of one."""
    sizes = [shard.size for shard in shards]
    return None if None in sizes else sum(size or 0 for size in sizes)


def kind_of_file(path: str) -> ShardKind | None:
    """The kind of a shard that is one file, by its suffix in any case; None for a file that is no shard."""
    path = path.lower()
    if _TAR.fullmatch(path):
        return "tar"
    if path.endswith(".zip"):
        return "zip"
    return "parquet" if _PARQUET.fullmatch(path) else None
