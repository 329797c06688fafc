"""Finds the shards of a source: tars, Parquet files or a folder of images, given in any of the usual ways."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braceexpand import braceexpand
from fsspec.utils import get_protocol

from pipeline.errors import SourceError, TagstreamError
from pipeline.sources.image_folder import image_files, is_hidden, is_image_name
from pipeline.sources.shard import FileVersion, Shard, ShardKind, Source, kind_of_file
from pipeline.storage.files import Filesystem, full_url, is_local, modified_s, open_filesystem, storage_errors
from pipeline.text import valid_unicode

_WILDCARDS = "*?["
_HTTP = ("http://", "https://")
# Files of a store that lies within the source.
_STORED = re.compile(r"(.*/)?(images|labels)/run=[^/]+/[^/]+\.parquet")
_LEADS_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_EXPECTED = (
    "expected a directory or prefix with *.tar or *.parquet, a glob, a pattern {00000..00099}.tar, @list "
    "or a folder of images"
)


@dataclass(frozen=True, slots=True)
class _Entry:
    url: str
    size: int | None
    etag: str | None
    modified: float | None


def find_source(given: str) -> Source:
    """Lists what a SOURCE argument names.

    A directory, prefix or glob costs one listing, a pattern or list of URLs one listing for each directory that it
    names; shards are never asked for one by one. Directories and globs pass over hidden files and the files of stores.
    Raises SourceError where nothing is found or names clash.
    """
    if not given:
        raise SourceError(f"the source is empty; {_EXPECTED}")
    with storage_errors(f"read the source {given}"):
        if given.startswith("@"):
            urls = _read_list(given[1:])
            return _shards_source(given, "", _look_up(given, urls))
        if not _exists_locally(given):
            if "{" in given:
                return _shards_source(given, _root_of_pattern(given), _expand(given))
            if _has_wildcard(given):
                return _shards_source(given, _root_of_pattern(given), _glob(given))
        return _find_directory_or_file(given)


def absolute_source(given: str) -> str:
    """A SOURCE argument as it is understood from any working directory."""
    if given.startswith("@"):
        return "@" + absolute_source(given[1:])
    return given if "://" in given else os.path.join(Path.cwd(), given)  # noqa: PTH118 (a pattern is no path)


def current_version(filesystem: Filesystem, path: str) -> tuple[int | None, str | None]:
    """Size and etag of a shard at this moment."""
    entry = _entry(filesystem, filesystem.info(path))
    if entry is None:
        raise FileNotFoundError(path)
    return entry.size, entry.etag


def shard_name(root: str, url: str) -> str:
    """A shard's name: its path below the root, without `.tar` or `.parquet`; below no root, its whole path."""
    path = _without_query(url).removeprefix(root)
    path = path.split("://", 1)[-1].lstrip("/")
    for suffix in (".tar", ".parquet"):
        if path.lower().endswith(suffix) and posixpath.basename(path)[: -len(suffix)]:
            path = path[: -len(suffix)]
            break
    return valid_unicode(path)


def _find_directory_or_file(given: str) -> Source:
    filesystem, path = open_filesystem(given)
    try:
        info = filesystem.info(path)
    except FileNotFoundError:
        raise SourceError(f"{given} does not exist; {_EXPECTED}") from None
    if info["type"] != "directory":
        entry = _entry(filesystem, info)
        if entry is None or _kind(entry.url) is None:
            raise SourceError(f"{given} is a single file that is neither tar nor Parquet; {_EXPECTED}")
        return _shards_source(given, posixpath.dirname(_without_query(entry.url)), [entry])
    return _directory_source(given, filesystem, path)


def _directory_source(given: str, filesystem: Filesystem, path: str) -> Source:
    root = full_url(filesystem, path)
    found = _visible(filesystem, root, filesystem.find(path, detail=True).values())
    entries = {name: entry for name, entry in found.items() if entry is not None}
    links = [name for name, entry in found.items() if entry is None]
    shards = [entry for name, entry in entries.items() if _kind(name)]
    if shards:
        source = _shards_source(given, root, shards)
        if n_loose := sum(map(is_image_name, entries)):
            source.notes.append(f"{n_loose} images beside the shards are left out; label their folder by itself")
    else:
        listing = {
            name: FileVersion(entry.size or 0, entry.etag, entry.modified or 0.0) for name, entry in entries.items()
        }
        source = Source(given, root, images=image_files(listing))
        if not source.images:
            raise SourceError(f"{given} holds {len(entries)} files, none of them a shard or an image; {_EXPECTED}")
    if links:
        source.notes.append(
            f"{len(links)} links that lead to a folder or nowhere are left out, the first is {valid_unicode(links[0])}"
        )
    return source


def _shards_source(given: str, root: str, entries: Iterable[_Entry]) -> Source:
    entries = sorted({entry.url: entry for entry in entries}.values(), key=lambda entry: entry.url)
    if not all(entry.url.startswith(root.rstrip("/") + "/") for entry in entries):
        root = ""
    by_name: dict[str, Shard] = {}
    for entry in entries:
        kind = _kind(entry.url)
        if kind is None:
            raise SourceError(f"{entry.url} in {given} is neither tar nor Parquet; {_EXPECTED}")
        shard = Shard(shard_name(root, entry.url), entry.url, kind, entry.size, entry.etag, entry.modified)
        other = by_name.setdefault(shard.name, shard)
        if other is not shard:
            raise SourceError(
                f"{other.url} and {shard.url} would share the name {shard.name!r}; label them as two runs"
            )
    if not by_name:
        raise SourceError(f"{given} matches nothing; {_EXPECTED}")
    return Source(given, root, list(by_name.values()))


def _kind(url: str) -> ShardKind | None:
    return kind_of_file(_without_query(url))


def _without_query(url: str) -> str:
    """A web address without what may differ each time, such as a signature."""
    return re.split("[?#]", url, maxsplit=1)[0] if url.startswith(_HTTP) else url


def _exists_locally(given: str) -> bool:
    # Not pathlib's, which raises for a pattern that is too long for a path.
    return "://" not in given and os.path.exists(given)  # noqa: PTH110


def _has_wildcard(pattern: str) -> bool:
    return any(character in _without_query(pattern) for character in _WILDCARDS)


def _read_list(url: str) -> list[str]:
    filesystem, path = open_filesystem(url)
    try:
        lines = filesystem.cat_file(path).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise SourceError(f"the list {url} does not exist; expected a file with one URL a line") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"the list {url} is no UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _expand(pattern: str) -> list[_Entry]:
    try:
        urls = list(braceexpand(pattern))
    except ValueError as error:
        raise SourceError(f"{pattern} is no valid pattern: {error}") from error
    plain = [url for url in urls if not _has_wildcard(url)]
    from_globs = [entry for url in urls if _has_wildcard(url) for entry in _glob(url)]
    return [*(_look_up(pattern, plain) if plain or not from_globs else []), *from_globs]


def _glob(pattern: str) -> list[_Entry]:
    filesystem, path = open_filesystem(pattern)
    try:
        infos = filesystem.glob(path, detail=True).values()
    except ValueError as error:
        raise SourceError(f"{pattern} is no valid pattern: {error}") from error
    found = _visible(filesystem, _root_of_pattern(pattern), infos, with_hidden="/." in pattern)
    return [entry for entry in found.values() if entry is not None]


def _visible(
    filesystem: Filesystem, root: str, infos: Iterable[dict[str, Any]], with_hidden: bool = False
) -> dict[str, _Entry | None]:
    """Files by their path below the root, without hidden ones and those of stores; None for links to no file."""
    found = {}
    for info in infos:
        name = full_url(filesystem, info["name"]).removeprefix(root).lstrip("/")
        if info["type"] != "directory" and (with_hidden or not is_hidden(name)) and not _STORED.fullmatch(name):
            found[name] = _entry(filesystem, info)
    return found


def _look_up(given: str, urls: list[str]) -> list[_Entry]:
    """Size and etag of every named shard, by listing the directories they lie in."""
    if not urls:
        raise SourceError(f"{given} names no shards; {_EXPECTED}")
    by_protocol: dict[str, list[str]] = {}
    for url in urls:
        by_protocol.setdefault(get_protocol(url), []).append(url)
    entries = [entry for group in by_protocol.values() for entry in _look_up_group(group)]
    missing = [url for url, entry in entries if entry is None]
    if missing:
        raise SourceError(
            f"{len(missing)} of the {len(entries)} shards of {given} do not exist, the first is {missing[0]}; "
            "correct the pattern or list"
        )
    return [entry for _, entry in entries if entry is not None]


def _look_up_group(urls: list[str]) -> list[tuple[str, _Entry | None]]:
    """The entry of each URL, all of one protocol."""
    if urls[0].startswith(_HTTP):
        # Web servers list nothing: a shard is looked at when it is read.
        return [(url, _Entry(url, None, None, None)) for url in urls]
    filesystem, _ = open_filesystem(urls[0])
    paths = [str(filesystem._strip_protocol(url)) for url in urls]
    if is_local(filesystem):
        paths = [os.path.normpath(path) for path in paths]
    with ThreadPoolExecutor(16) as pool:
        folders = sorted({posixpath.dirname(path) for path in paths})
        listings = pool.map(lambda folder: _list_folder(filesystem, folder), folders)
        known = {entry.url: entry for listing in listings for entry in listing}
    wanted = [full_url(filesystem, path) for path in dict.fromkeys(paths)]
    return [(url, known.get(url)) for url in wanted]


def _list_folder(filesystem: Filesystem, folder: str) -> list[_Entry]:
    try:
        infos = filesystem.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    entries = (_entry(filesystem, info) for info in infos if info["type"] != "directory" and _kind(info["name"]))
    return [entry for entry in entries if entry is not None]


def _entry(filesystem: Filesystem, info: dict[str, Any]) -> _Entry | None:
    """A listed file; None for what is none, such as a link that leads nowhere."""
    url = full_url(filesystem, info["name"])
    if is_local(filesystem):
        # A listing tells of a link itself, not of the file it leads to.
        try:
            status = Path(url).stat()
        except OSError as error:
            if error.errno in _LEADS_NOWHERE:
                return None
            raise
        if not stat.S_ISREG(status.st_mode):
            return None
        # A file moved into place keeps its old modification time; its status change says when it arrived.
        return _Entry(url, status.st_size, f"{status.st_mtime:.6f}", max(status.st_mtime, status.st_ctime))
    etag = info.get("ETag") or info.get("etag")
    return _Entry(url, info.get("size"), etag and str(etag).strip('"'), modified_s(info))


def _root_of_pattern(pattern: str) -> str:
    """The directory in front of a pattern's first brace or wildcard."""
    first = min(pattern.find(character) % (len(pattern) + 1) for character in "{" + _WILDCARDS)
    folder = posixpath.dirname(pattern[:first] + "x")
    try:
        filesystem, path = open_filesystem(folder or ".")
    except TagstreamError as error:
        raise SourceError(f"cannot understand the source {pattern}: {error}") from error
    return full_url(filesystem, path)
