"""Captions and labels that a folder of images lists in Hugging Face's `metadata.jsonl` or `metadata.csv`.

Such a file speaks of the images of its folder and below, each by its path from there. What lies beside an image itself
comes first.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.annotations.annotation import Annotation, Annotations, CaptionsError, Listed
from pipeline.annotations.captions import read_list
from pipeline.sources.shard import ImageFile, Shard
from pipeline.storage.files import Filesystem, open_filesystem, read_if_exists, storage_errors
from pipeline.text import valid_unicode

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
# Each folder is asked for both: on object stores a request each. Those near the root come first.
_MAX_FOLDERS = 2000
_N_READERS = 16


def describe_shards(root: str, shards: Sequence[Shard]) -> tuple[list[Shard], list[str]]:
    """Shards of a folder whose images know what its metadata says of them, and sentences on what could not be taken.

    Args:
        root: the folder's URL.
    """
    found, notes = read_metadata(root, [file for shard in shards for file in shard.files])
    if not found:
        return list(shards), notes
    return [replace(shard, files=tuple(_described(file, found) for file in shard.files)) for shard in shards], notes


def read_metadata(root: str, files: Sequence[ImageFile]) -> tuple[Annotations, list[str]]:
    """What the metadata files of a folder say of images, by their paths, and sentences on what could not be taken."""
    filesystem, path = open_filesystem(root)
    folders = _folders(file.path for file in files)
    with storage_errors(f"read the metadata of {root}"), ThreadPoolExecutor(_N_READERS) as pool:
        contents = list(pool.map(lambda folder: _read_folder(filesystem, path, folder), folders[:_MAX_FOLDERS]))
    paths = {file.path for file in files}
    found: Annotations = {}
    notes: list[str] = []
    for name, content in (one for of_folder in contents for one in of_folder):
        listed = Listed()
        try:
            read_list(name, content, listed)
        except CaptionsError as error:
            notes.append(f"{valid_unicode(str(error))}; captions and labels are taken without it")
            continue
        if listed.problems:
            n_more = len(listed.problems) - 1
            more = f" (and {n_more:,} more)" if n_more else ""
            notes.append(f"left out of the metadata: {listed.problems[0]}{more}")
        for file, annotation in listed.annotations.items():
            image = posixpath.normpath(posixpath.join(posixpath.dirname(name), file))
            if image in paths:
                found.setdefault(image, Annotation()).merge(annotation)
    return found, notes


def _folders(paths: Iterable[str]) -> list[str]:
    """The folders of files and all above them, the root first: relative paths."""
    folders = {""}
    for path in paths:
        folder = posixpath.dirname(path)
        while folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return sorted(folders, key=lambda folder: (folder.count("/") + bool(folder), folder))


def _read_folder(filesystem: Filesystem, root: str, folder: str) -> list[tuple[str, bytes]]:
    """Relative path and content of a folder's metadata files."""
    names = [posixpath.join(folder, name) for name in METADATA_NAMES]
    contents = ((name, read_if_exists(filesystem, f"{root}/{name}")) for name in names)
    return [(name, content) for name, content in contents if content is not None]


def _described(file: ImageFile, found: Annotations) -> ImageFile:
    annotation = found.get(file.path)
    if annotation is None:
        return file
    return replace(file, captions=tuple(annotation.captions), labels=tuple(sorted(annotation.labels)))
