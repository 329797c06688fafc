"""Finds the shards of a source: tars, Parquet files or a folder of images, given in any of the usual ways."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from braceexpand import braceexpand
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import SourceError, TagstreamError
from pipeline.folder import ImageFile, image_files, is_image_name
from pipeline.storage import Filesystem, open_filesystem, storage_errors

ShardKind = Literal["tar", "parquet", "folder"]
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_WILDCARDS = "*?["
_EXPECTED = (
    "expected a directory or prefix with *.tar or *.parquet, a glob, a pattern {00000..00099}.tar, @list "
    "or a folder of images"
)


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
    """Seconds since the epoch."""
    files: tuple[ImageFile, ...] = ()
    """Of a folder's shard: which files belong to it; `url` is the folder."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a source was found to hold."""

    given: str
    root: str
    """What shard names are relative to; empty for lists, whose shards carry their whole path."""
    shards: list[Shard] = field(default_factory=list)
    images: list[ImageFile] = field(default_factory=list)
    """Of a folder of images, which has no shards of its own."""
    notes: list[str] = field(default_factory=list)
    """What the user should know of what was left out."""


@dataclass(frozen=True, slots=True)
class _Entry:
    url: str
    size: int | None
    etag: str | None
    modified: float | None


def find_source(given: str) -> Source:
    """Lists what a SOURCE argument names.

    A directory, prefix or glob costs one listing, a pattern or list of URLs one listing for each directory that it
    names; shards are never asked for one by one. Raises SourceError where nothing is found or names clash.
    """
    with storage_errors(f"read the source {given}"):
        if given.startswith("@"):
            urls = _read_list(given[1:])
            return _shards_source(given, "", _look_up(given, urls))
        if "{" in given:
            return _shards_source(given, _root_of_pattern(given), _expand(given))
        if any(character in given for character in _WILDCARDS):
            return _shards_source(given, _root_of_pattern(given), _glob(given))
        return _find_directory_or_file(given)


def shard_name(root: str, url: str) -> str:
    """A shard's name: its path below the root, without `.tar` or `.parquet`; below no root, its whole path."""
    path = url.removeprefix(root).lstrip("/") if root else url.split("://", 1)[-1].lstrip("./")
    return path.removesuffix(".tar").removesuffix(".parquet")


def _find_directory_or_file(given: str) -> Source:
    filesystem, path = open_filesystem(given)
    try:
        info = filesystem.info(path)
    except FileNotFoundError:
        raise SourceError(f"{given} does not exist; {_EXPECTED}") from None
    if info["type"] == "file":
        entry = _entry(filesystem, info)
        if _kind(entry.url) is None:
            raise SourceError(f"{given} is a single file that is neither tar nor Parquet; {_EXPECTED}")
        return _shards_source(given, posixpath.dirname(entry.url), [entry])
    root = _full_url(filesystem, path)
    entries = [_entry(filesystem, info) for info in filesystem.find(path, detail=True).values()]
    if any(_kind(entry.url) for entry in entries):
        source = _shards_source(given, root, [entry for entry in entries if _kind(entry.url)])
        n_loose = sum(is_image_name(entry.url) for entry in entries)
        if n_loose:
            source.notes.append(
                f"{n_loose} loose images beside the shards are left out; label them by a glob or folder"
            )
        return source
    listing = {entry.url.removeprefix(root).lstrip("/"): (entry.size or 0, entry.modified or 0.0) for entry in entries}
    images = image_files(listing)
    if not images:
        raise SourceError(f"{given} holds {len(entries)} files, none of them a shard or an image; {_EXPECTED}")
    return Source(given, root, images=images)


def _shards_source(given: str, root: str, entries: Iterable[_Entry]) -> Source:
    shards = []
    for entry in sorted(entries, key=lambda entry: entry.url):
        kind = _kind(entry.url)
        if kind is None:
            raise SourceError(f"{entry.url} in {given} is neither tar nor Parquet; {_EXPECTED}")
        name = shard_name(root, entry.url)
        shards.append(Shard(name, entry.url, kind, entry.size, entry.etag, entry.modified))
    if not shards:
        raise SourceError(f"{given} matches nothing; {_EXPECTED}")
    by_name: dict[str, Shard] = {}
    for shard in shards:
        other = by_name.setdefault(shard.name, shard)
        if other is not shard:
            raise SourceError(
                f"{other.url} and {shard.url} would share the name {shard.name!r}; label them as two runs"
            )
    return Source(given, root, shards)


def _kind(url: str) -> ShardKind | None:
    if url.endswith(_TAR_SUFFIXES):
        return "tar"
    return "parquet" if url.endswith(".parquet") else None


def _read_list(path: str) -> list[str]:
    filesystem, path = open_filesystem(path)
    lines = filesystem.cat_file(path).decode("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _expand(pattern: str) -> list[_Entry]:
    try:
        urls = list(braceexpand(pattern))
    except ValueError as error:
        raise SourceError(f"{pattern} is no valid pattern: {error}") from error
    globs = [url for url in urls if any(character in url for character in _WILDCARDS)]
    plain = [url for url in urls if url not in set(globs)]
    return [*_look_up(pattern, plain), *(entry for url in globs for entry in _glob(url))]


def _glob(pattern: str) -> list[_Entry]:
    filesystem, path = open_filesystem(pattern)
    matches = filesystem.glob(path, detail=True)
    return [_entry(filesystem, info) for info in matches.values() if info["type"] == "file"]


def _look_up(given: str, urls: list[str]) -> list[_Entry]:
    """Size and etag of every named shard, by listing the directories they lie in."""
    if not urls:
        raise SourceError(f"{given} names no shards; {_EXPECTED}")
    if urls[0].startswith(("http://", "https://")):
        # Web servers list nothing: a shard is looked at when it is read.
        return [_Entry(url, None, None, None) for url in urls]
    filesystem, _ = open_filesystem(urls[0])
    paths = [str(filesystem._strip_protocol(url)) for url in urls]
    with ThreadPoolExecutor(16) as pool:
        listings = pool.map(lambda folder: _list_folder(filesystem, folder), sorted({_parent(path) for path in paths}))
        known = {entry.url: entry for listing in listings for entry in listing}
    wanted = [_full_url(filesystem, path) for path in paths]
    missing = [url for url in wanted if url not in known]
    if missing:
        raise SourceError(
            f"{len(missing)} of the {len(wanted)} shards of {given} do not exist, the first is {missing[0]}; "
            "correct the pattern or list"
        )
    return [known[url] for url in dict.fromkeys(wanted)]


def _list_folder(filesystem: Filesystem, folder: str) -> list[_Entry]:
    try:
        infos = filesystem.ls(folder, detail=True)
    except FileNotFoundError:
        return []
    return [_entry(filesystem, info) for info in infos if info["type"] == "file"]


def _entry(filesystem: Filesystem, info: dict[str, Any]) -> _Entry:
    etag = info.get("ETag") or info.get("etag")
    modified = info.get("LastModified") or info.get("mtime")
    if isinstance(filesystem, LocalFileSystem):
        etag = f"{info['mtime']:.6f}"
        # A file moved into place keeps its old modification time; its status change says when it arrived.
        modified = max(info["mtime"], info["created"])
    elif modified is not None and not isinstance(modified, int | float):
        modified = modified.timestamp()
    return _Entry(_full_url(filesystem, info["name"]), info.get("size"), etag and str(etag).strip('"'), modified)


def current_version(filesystem: Filesystem, path: str) -> tuple[int | None, str | None]:
    """Size and etag of a shard at this moment."""
    entry = _entry(filesystem, filesystem.info(path))
    return entry.size, entry.etag


def _full_url(filesystem: Filesystem, path: str) -> str:
    if isinstance(filesystem, LocalFileSystem):
        return str(Path(path))
    return str(filesystem.unstrip_protocol(path))


def _parent(path: str) -> str:
    return posixpath.dirname(path)


def _root_of_pattern(pattern: str) -> str:
    """The directory in front of a pattern's first brace or wildcard."""
    first = min(pattern.find(character) % (len(pattern) + 1) for character in "{" + _WILDCARDS)
    folder = posixpath.dirname(pattern[:first] + "x")
    try:
        filesystem, path = open_filesystem(folder or ".")
    except TagstreamError as error:
        raise SourceError(f"cannot understand the source {pattern}: {error}") from error
    return _full_url(filesystem, path)
