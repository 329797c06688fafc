"""The encoded images of a run once more, read from the source that it labelled.

Keys and names of shards come from the source and are not trusted: nothing outside the source's root is read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import SourceError
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.image_folder import is_image_name, suffix_of
from pipeline.sources.listing import find_source
from pipeline.sources.sample import IMAGE_SUFFIXES
from pipeline.sources.shard_reader import OpenFile, open_if_exists
from pipeline.storage.files import is_gone, open_filesystem, storage_errors
from pipeline.text import one_line
from schemas import RunRecord, content_hash

ImageRow = Mapping[str, Any]
_GONE = "the original is gone"
_CHANGED = "the original has changed since it was labelled"
_NO_PATH = "its key is no path of an image below the source"
_FILES_AT_ONCE = 16
_SHARD_SUFFIXES = (".tar", ".parquet", "")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9]+")
_MAX_STEM_CHARACTERS = 60
_STARTS = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}


@dataclass(frozen=True, slots=True)
class Original:
    """An image of a run with its encoded bytes, or why there are none."""

    image: ImageRow
    data: bytes | None
    problem: str | None = None


def read_originals(record: RunRecord, wanted: Iterable[ImageRow]) -> Iterator[Original]:
    """The originals of a run's images, one for each, in their order; those of a shard are streamed from it in one go.

    What is gone, or is not what was labelled, has no bytes and a `problem`. Raises StoreError where the source cannot
    be read at all, and SourceError where it was a list that is not there any more.

    Args:
        wanted: rows of `images` with shard, index, key and content_hash; in the order of shard and index.
    """
    find = _Shards(record)
    for shard, rows in groupby(wanted, key=lambda image: str(image["shard"])):
        with storage_errors(f"read the originals of shard {shard}"):
            if record.folder_buckets:
                yield from _read_files(record.source_root, rows)
            else:
                yield from _read_shard(find, shard, list(rows))


def original_address(record: RunRecord, image: ImageRow) -> str:
    """Where the original lies, for people and tools: a file's path or URL, `SHARD#KEY` for what lies in a shard."""
    name = image["key"] if record.folder_buckets else f"{image['shard']}#{image['key']}"
    return f"{record.source_root.rstrip('/')}/{name}" if record.source_root else name


def clean_file_name(image: ImageRow, data: bytes) -> str:
    """A file name for an original: plain ASCII of the end of its key, its id, the suffix of its format.

    The id makes it another one for each image of a run, also where capitals are not told apart.
    """
    name = PurePosixPath(image["key"]).name
    stem = name.rsplit(".", 1)[0] if suffix_of(name) in IMAGE_SUFFIXES else name
    plain = _NOT_PLAIN.sub("-", stem).strip("-")[:_MAX_STEM_CHARACTERS]
    suffix = next((suffix for start, suffix in _STARTS.items() if data.startswith(start)), "bin")
    return f"{plain}{'-' if plain else ''}{image['image_id'] % 2**64:016x}.{suffix}"


class _Shards:
    """Opens the shards of a run by name."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._urls: dict[str, str] | None = None

    def open(self, name: str) -> OpenFile | None:
        """The shard's file; None where the shard is gone."""
        if ".." in PurePosixPath(name).parts:
            return None
        if self._record.source_root:
            # Not a URL of root and name, in which a hostile name could address another filesystem.
            filesystem, root = open_filesystem(self._record.source_root)
            paths = [f"{root}/{name}{suffix}" for suffix in _SHARD_SUFFIXES]
        else:
            url = self._listed().get(name)
            if url is None:
                return None
            filesystem, path = open_filesystem(url)
            paths = [path]
        opened = (open_if_exists(filesystem, path) for path in paths)
        return next((file for file in opened if file is not None), None)

    def _listed(self) -> dict[str, str]:
        """URLs by name, of a source whose names are not relative to a root."""
        if self._urls is None:
            try:
                self._urls = {shard.name: shard.url for shard in find_source(self._record.source).shards}
            except SourceError as error:
                raise SourceError(f"the originals cannot be found: {error}") from error
        return self._urls


def _read_shard(shards: _Shards, name: str, images: list[ImageRow]) -> Iterator[Original]:
    file = shards.open(name)
    if file is None:
        yield from (Original(image, None, _GONE) for image in images)
        return
    by_index = {image["index"]: image for image in images}
    # What was labelled may be larger than the limit that others are labelled with.
    limit = max(MAX_SAMPLE_BYTES, *(image.get("n_bytes") or 0 for image in images))
    samples: Any = file.samples(limit)
    with file, contextlib.closing(samples):
        for index, sample in enumerate(samples):
            if index in by_index:
                yield _checked(by_index.pop(index), sample.data)
            if not by_index:
                return
    yield from (Original(image, None, _GONE) for image in by_index.values())


def _read_files(root_url: str, images: Iterator[ImageRow]) -> Iterator[Original]:
    filesystem, root = open_filesystem(root_url)
    while batch := list(islice(images, _FILES_AT_ONCE)):
        # Hidden files are no images, and neither is what a path with `..` leads to.
        safe = [image for image in batch if is_image_name(image["key"])]
        # Not cat(), which would take brackets in a name for a pattern.
        paths = [f"{root}/{image['key']}" for image in safe]
        contents = filesystem.cat_ranges(paths, None, None, on_error="return") if safe else []
        by_id = {image["image_id"]: content for image, content in zip(safe, contents, strict=True)}
        for image in batch:
            content = by_id.get(image["image_id"])
            if content is None:
                yield Original(image, None, _NO_PATH)
            elif isinstance(content, bytes):
                yield _checked(image, content)
            elif is_gone(content):
                yield Original(image, None, _GONE)
            elif isinstance(content, PermissionError):
                yield Original(image, None, f"the original cannot be read: {one_line(content)}")
            else:
                raise content


def _checked(image: ImageRow, data: bytes | None) -> Original:
    """The original, unless it is not what was labelled."""
    is_same = data is not None and image["content_hash"] in (None, content_hash(data))
    return Original(image, data) if is_same else Original(image, None, _CHANGED)
