"""Finds what a source holds, given in any of the usual ways: tars, zips, Parquet files, images, folders of them."""

from __future__ import annotations

import errno
import os
import posixpath
import random
import shlex
import stat
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from braceexpand import braceexpand

from pipeline.annotations.side_files import SIDE_SUFFIXES
from pipeline.errors import SourceError, StorageError, TagstreamError
from pipeline.sources.contents import (
    CLOSED_FOLDER,
    EXPECTED,
    LINK,
    SPECIAL_FILE,
    SUPERSEDED_FILE,
    UNREADABLE_FILE,
    File,
    Found,
    make_source,
    without_query,
)
from pipeline.sources.delta import superseded_files
from pipeline.sources.image_folder import is_hidden, suffix_of
from pipeline.sources.sample import is_image_suffix
from pipeline.sources.shard import Source, kind_of_file
from pipeline.storage.files import (
    HTTP_PROTOCOLS,
    RETRY_WAITS_S,
    Filesystem,
    full_url,
    is_local,
    may_pass,
    modified_s,
    open_filesystem,
    protocol_of,
    storage_errors,
)
from pipeline.text import CONCEALED

_WILDCARDS = "*?["
_LEADS_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_N_NAMED = 3
_N_LISTERS = 16


def find_source(*given: str) -> Source:
    """Lists what SOURCE arguments name; several make one source, whose names are relative to their common directory.

    A directory, prefix or glob costs one listing, a pattern or list of URLs one listing for each directory that it
    names; shards are never asked for one by one. Directories and globs pass over hidden files and the files of stores;
    what else is left out is counted. Raises SourceError where nothing is found or names clash.
    """
    if not given or not all(given):
        raise SourceError(f"the source is empty; {EXPECTED}")
    if concealed := [one for one in given if "://" in one and CONCEALED in one]:
        raise SourceError(
            f"{concealed[0]} was given with a signature or a login, which no record keeps, so that only the command "
            "that has them can read it; a link without them, or an @list that is written anew, can be read later"
        )
    name = source_name(given)
    with storage_errors(f"read the source {name}"):
        source = make_source(name, _find_patiently(given))
    return replace(source, addresses=given) if len(given) > 1 else source


def source_name(given: Sequence[str]) -> str:
    """SOURCE arguments as messages name them."""
    named = given[0] if len(given) == 1 else " ".join(map(shlex.quote, given[:_N_NAMED]))
    return f"{named} and {len(given) - _N_NAMED:,} more" if len(given) > _N_NAMED else named


def absolute_source(given: str) -> str:
    """A SOURCE argument as it is understood from any working directory."""
    if given.startswith("@"):
        return "@" + absolute_source(given[1:])
    return given if "://" in given else os.path.join(Path.cwd(), given)  # noqa: PTH118 (a pattern is no path)


def is_there(given: str) -> bool:
    """Whether a SOURCE argument may lead to something: all may but a local path that does not exist."""
    is_path = "://" not in given and not given.startswith("@") and "{" not in given and not _has_wildcard(given)
    return not is_path or _exists_locally(given)


def current_version(filesystem: Filesystem, path: str) -> tuple[int | None, str | None]:
    """Size and etag of a shard at this moment."""
    file = _file(filesystem, filesystem.info(path))
    if file is None:
        raise FileNotFoundError(path)
    return file.size, file.etag


def _find_patiently(given: Sequence[str]) -> list[Found]:
    for wait_s in RETRY_WAITS_S:
        try:
            return _find_each(given)
        except Exception as error:
            if not any(may_pass(one.removeprefix("@"), error) for one in given):
                raise
        time.sleep(random.random() * wait_s)
    return _find_each(given)


def _find_each(given: Sequence[str]) -> list[Found]:
    """What each argument leads to. Files that the shell has named are looked up together."""
    plain = [one for one in given if len(given) > 1 and _is_local_file(one)]
    found = [_find(one) for one in given if one not in set(plain)]
    by_folder: dict[str, list[str]] = {}
    for one in plain:
        path = os.path.normpath(absolute_source(one))
        by_folder.setdefault(posixpath.dirname(path), []).append(path)
    found += [_look_up(source_name(paths), paths, folder) for folder, paths in by_folder.items()]
    return found


def _find(given: str) -> Found:
    if given.startswith("@"):
        return _look_up(given, _read_list(given[1:]), "")
    if _exists_locally(given):
        return _find_directory_or_file(given)
    is_pattern = "{" in given or _has_wildcard(given)
    if not is_pattern:
        return _find_directory_or_file(given)
    try:
        found = _expand(given) if "{" in given else _glob(given)
        if found.files:
            return found
        missing = SourceError(f"{given} matches nothing; {EXPECTED}")
    except SourceError as error:
        missing = error
    # A prefix may be named like a pattern.
    if "://" in given and not given.startswith(HTTP_PROTOCOLS) and (named := _find_as_named(given)) is not None:
        return named
    raise missing


def _find_as_named(given: str) -> Found | None:
    try:
        return _find_directory_or_file(given)
    except (SourceError, StorageError, OSError, ValueError):
        return None


def _find_directory_or_file(given: str) -> Found:
    filesystem, path = open_filesystem(given)
    try:
        info = filesystem.info(path)
    except FileNotFoundError:
        raise SourceError(f"{given} does not exist; {EXPECTED}") from None
    if info["type"] == "directory":
        return _list_directory(filesystem, path)
    file = _file(filesystem, info)
    if file is None or not _is_named_file(file.url):
        raise SourceError(f"{given} is a single file that is neither a shard nor an image; {EXPECTED}")
    root = posixpath.dirname(without_query(file.url))
    return Found(root, [file], beside=_side_files_beside(filesystem, [file]))


def _list_directory(filesystem: Filesystem, path: str) -> Found:
    root = full_url(filesystem, path)
    left_out: Counter[str] = Counter()
    if is_local(filesystem):
        files = list(_walk(root, left_out))
    else:
        files = list(_visible(filesystem, root, filesystem.find(path, detail=True).values(), left_out))
    by_name = {file.url.removeprefix(root).lstrip("/"): file for file in files}
    for name in superseded_files(filesystem, path, by_name):
        left_out[SUPERSEDED_FILE] += 1
        del by_name[name]
    return Found(root, list(by_name.values()), left_out)


def _walk(root: str, left_out: Counter[str]) -> Iterator[File]:
    """The files of a local directory and all below it, but hidden ones.

    Not fsspec's, which passes over folders that may not be read without a word. Raises PermissionError where the root
    may not be read.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:
            if folder == root:
                raise
            left_out[CLOSED_FOLDER] += 1
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
                continue
            try:
                file = _local_file(entry.path)
            except OSError:
                left_out[UNREADABLE_FILE] += 1
                continue
            if file is not None:
                yield file
            else:
                left_out[LINK if entry.is_symlink() else SPECIAL_FILE] += 1


def _exists_locally(given: str) -> bool:
    # Not pathlib's, which raises for a pattern that is too long for a path.
    return "://" not in given and os.path.exists(given)  # noqa: PTH110


def _is_local_file(given: str) -> bool:
    return _exists_locally(given) and not os.path.isdir(given)  # noqa: PTH112 (as above)


def _has_wildcard(pattern: str) -> bool:
    return any(character in without_query(pattern) for character in _WILDCARDS)


def _read_list(url: str) -> list[str]:
    filesystem, path = open_filesystem(url)
    try:
        lines = filesystem.cat_file(path).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise SourceError(f"the list {url} does not exist; expected a file with one URL a line") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"the list {url} is no UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _expand(pattern: str) -> Found:
    root = _root_of_pattern(pattern)
    try:
        urls = list(braceexpand(pattern))
    except ValueError as error:
        raise SourceError(f"{pattern} is no valid pattern: {error}") from error
    plain = [url for url in urls if not _has_wildcard(url)]
    globs = [_glob(url) for url in urls if _has_wildcard(url)]
    named = [_look_up(pattern, plain, root)] if plain or not any(found.files for found in globs) else []
    left_out = sum((found.left_out for found in globs), Counter[str]())
    found = [*named, *globs]
    beside = [file for one in found for file in one.beside]
    return Found(root, [file for one in found for file in one.files], left_out, beside)


def _glob(pattern: str) -> Found:
    filesystem, path = open_filesystem(pattern)
    try:
        infos = filesystem.glob(path, detail=True).values()
    except ValueError as error:
        raise SourceError(f"{pattern} is no valid pattern: {error}") from error
    root, left_out = _root_of_pattern(pattern), Counter[str]()
    files = list(_visible(filesystem, root, infos, left_out, with_hidden="/." in pattern))
    if is_local(filesystem) and "**" in path:
        # fsspec passes over folders that may not be read.
        below = Counter[str]()
        deque(_walk(root, below), maxlen=0)
        left_out[CLOSED_FOLDER] += below[CLOSED_FOLDER]
    return Found(root, files, +left_out, _side_files_beside(filesystem, files))


def _visible(
    filesystem: Filesystem,
    root: str,
    infos: Iterable[dict[str, Any]],
    left_out: Counter[str],
    with_hidden: bool = False,
) -> Iterator[File]:
    """The files of a listing without hidden ones; what is no file is counted in `left_out`."""
    for info in infos:
        name = full_url(filesystem, info["name"]).removeprefix(root).lstrip("/")
        if info["type"] == "directory" or (is_hidden(name) and not with_hidden):
            continue
        if (file := _file(filesystem, info)) is not None:
            yield file
        else:
            left_out[LINK if info.get("islink") else SPECIAL_FILE] += 1


def _look_up(given: str, urls: list[str], root: str) -> Found:
    """Size and etag of every named file, by listing the directories they lie in."""
    if not urls:
        raise SourceError(f"{given} names no shards; {EXPECTED}")
    by_protocol: dict[str, list[str]] = {}
    for url in urls:
        by_protocol.setdefault(protocol_of(url), []).append(url)
    groups = [_look_up_group(group) for group in by_protocol.values()]
    named = [pair for group, _ in groups for pair in group.items()]
    missing = [url for url, file in named if file is None]
    if missing and len(missing) < len(named) and all(is_image_suffix(suffix_of(url)) for url in missing):
        # Of many images one that is gone is a row.
        named = [(url, file or File(url, 0)) for url, file in named]
    elif missing:
        raise SourceError(
            f"{len(missing)} of the {len(named)} shards of {given} do not exist, the first is {missing[0]}; "
            "correct the pattern or list"
        )
    files = [file for _, file in named if file is not None]
    return Found(root, files, beside=[file for _, beside in groups for file in beside])


def _look_up_group(urls: list[str]) -> tuple[dict[str, File | None], list[File]]:
    """The file of each URL, all of one protocol, and the side files that lie beside them."""
    if urls[0].startswith(HTTP_PROTOCOLS):
        # Web servers list nothing: a shard is looked at when it is read.
        return {url: File(url) for url in urls}, []
    filesystem, _ = open_filesystem(urls[0])
    paths = [str(filesystem._strip_protocol(url)) for url in urls]
    if is_local(filesystem):
        paths = [os.path.normpath(path) for path in paths]
    files = _list_folders(filesystem, {posixpath.dirname(path) for path in paths}, set(paths))
    known = {file.url: file for file in files}
    wanted = dict.fromkeys(full_url(filesystem, path) for path in paths)
    return {url: known.get(url) for url in wanted}, [file for file in files if suffix_of(file.url) in SIDE_SUFFIXES]


def _side_files_beside(filesystem: Filesystem, files: Iterable[File]) -> list[File]:
    """The side files that lie beside images; those on web servers are not known, since servers list nothing."""
    folders = {
        posixpath.dirname(str(filesystem._strip_protocol(file.url)))
        for file in files
        if is_image_suffix(suffix_of(file.url)) and not file.url.startswith(HTTP_PROTOCOLS)
    }
    return _list_folders(filesystem, folders, set())


def _list_folders(filesystem: Filesystem, folders: Iterable[str], wanted: set[str]) -> list[File]:
    """The wanted files of some directories, given by path, and all their side files."""
    with ThreadPoolExecutor(_N_LISTERS) as pool:
        listings = pool.map(lambda folder: _list_folder(filesystem, folder, wanted), sorted(folders))
        return [file for listing in listings for file in listing]


def _list_folder(filesystem: Filesystem, folder: str, wanted: set[str]) -> list[File]:
    try:
        infos = _entries(filesystem, folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    needed = (info for info in infos if info["name"] in wanted or suffix_of(info["name"]) in SIDE_SUFFIXES)
    files = (_file(filesystem, info) for info in needed if info["type"] != "directory")
    return [file for file in files if file is not None]


def _entries(filesystem: Filesystem, folder: str) -> list[dict[str, Any]]:
    if is_local(filesystem):
        # Not fsspec's, which asks for the state of each file, however few are wanted.
        return [{"name": entry.path, "type": "file"} for entry in os.scandir(folder) if not entry.is_dir()]
    entries: list[dict[str, Any]] = filesystem.ls(folder, detail=True)
    return entries


def _file(filesystem: Filesystem, info: dict[str, Any]) -> File | None:
    """A listed file; None for what is none, such as a link that leads nowhere."""
    url = full_url(filesystem, info["name"])
    if is_local(filesystem):
        return _local_file(url)
    etag = info.get("ETag") or info.get("etag")
    return File(url, info.get("size"), etag and str(etag).strip('"'), modified_s(info))


def _local_file(path: str) -> File | None:
    """A local file, or the one that a link leads to; None for what is none. Raises OSError where it cannot be told."""
    try:
        status = os.stat(path)  # noqa: PTH116 (half the time of pathlib's)
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return None
        raise
    if not stat.S_ISREG(status.st_mode):
        return None
    # A file moved into place keeps its old modification time; its status change says when it arrived.
    return File(path, status.st_size, f"{status.st_mtime:.6f}", max(status.st_mtime, status.st_ctime))


def _is_named_file(url: str) -> bool:
    """Whether a file is one to label by its name, or to look into for want of a suffix."""
    suffix = suffix_of(url)
    return kind_of_file(without_query(url)) is not None or is_image_suffix(suffix) or not suffix


def _root_of_pattern(pattern: str) -> str:
    """The directory in front of a pattern's first brace or wildcard."""
    first = min(pattern.find(character) % (len(pattern) + 1) for character in "{" + _WILDCARDS)
    folder = posixpath.dirname(pattern[:first] + "x")
    try:
        filesystem, path = open_filesystem(folder or ".")
    except TagstreamError as error:
        raise SourceError(f"cannot understand the source {pattern}: {error}") from error
    return full_url(filesystem, path)
