"""The encoded images of a run once more, read from the source that it labelled.

Keys and names of shards come from the source and are not trusted: nothing outside the source's root is read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import Any

from model.images.image_formats import format_of
from pipeline.errors import SourceError, TagstreamError
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.image_folder import is_hidden, is_image_name, suffix_of
from pipeline.sources.listing import find_source
from pipeline.sources.sample import Sample, is_image_suffix
from pipeline.sources.shard import ColumnNames
from pipeline.sources.shard_reader import OpenFile, open_if_exists
from pipeline.storage.files import Filesystem, is_gone, open_filesystem, read_if_exists, storage_errors
from pipeline.text import CONCEALED, one_line
from schemas import RunRecord, content_hash

ImageRow = Mapping[str, Any]
_GONE = "the original is gone"
_CONCEALED_SOURCE = "the original needs the signature or login of its link, which the store does not keep"
_CHANGED = "the original has changed since it was labelled"
_NO_PATH = "its key is no path below the source"
_FILES_AT_ONCE = 16
_SHARD_SUFFIXES = (".tar", ".parquet", "")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9]+")
_MAX_STEM_CHARACTERS = 60
_SUFFIXES = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "ICO": "ico",
    "AVIF": "avif",
    "HEIF": "heic",
    "JPEG2000": "jp2",
    "JXL": "jxl",
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
    is_concealed = any(CONCEALED in address for address in record.addresses)
    gone = _CONCEALED_SOURCE if is_concealed else _GONE
    for shard, rows in groupby(wanted, key=lambda image: str(image["shard"])):
        with storage_errors(f"read the originals of shard {shard}"):
            if record.folder_buckets:
                yield from _read_files(record.source_root, rows)
            else:
                yield from _read_shard(find, shard, list(rows), gone)


def original_address(record: RunRecord, image: ImageRow) -> str:
    """Where the original lies, for people and tools: a file's path or URL, `SHARD#KEY` for what lies in a shard."""
    name = image["key"] if record.folder_buckets else f"{image['shard']}#{image['key']}"
    return f"{record.source_root.rstrip('/')}/{name}" if record.source_root else name


def clean_file_name(image: ImageRow, data: bytes) -> str:
    """A file name for an original: plain ASCII of the end of its key, its id, the suffix of its format.

    The id makes it another one for each image of a run, also where capitals are not told apart.
    """
    name = PurePosixPath(image["key"]).name
    stem = name.rsplit(".", 1)[0] if is_image_suffix(suffix_of(name)) else name
    plain = _NOT_PLAIN.sub("-", stem).strip("-")[:_MAX_STEM_CHARACTERS]
    return f"{plain}{'-' if plain else ''}{image['image_id'] % 2**64:016x}.{content_suffix(data)}"


def content_suffix(data: bytes) -> str:
    """The usual suffix of an image, by how its content begins."""
    return _SUFFIXES.get(format_of(data) or "", "bin")


class _Shards:
    """Opens the shards of a run by name."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._urls: dict[str, str] | None = None

    def open(self, name: str) -> OpenFile | None:
        """The shard's file; None where the shard is gone."""
        if ".." in PurePosixPath(name).parts:
            return None
        columns = ColumnNames(**self._record.columns)
        if self._record.source_root:
            # Not a URL of root and name, in which a hostile name could address another filesystem.
            filesystem, root = open_filesystem(self._record.source_root)
            paths = [f"{root}/{name}{suffix}" for suffix in _SHARD_SUFFIXES]
            opened = (open_if_exists(filesystem, path, columns) for path in paths)
            if (file := next((file for file in opened if file is not None), None)) is not None:
                return file
        # The listing has the name that the file itself has, such as `a.TAR`.
        url = self._listed().get(name)
        return None if url is None else open_if_exists(*open_filesystem(url), columns)

    def _listed(self) -> dict[str, str]:
        """URLs by name, as the source is listed."""
        if self._urls is None:
            try:
                source = find_source(*self._record.addresses).of_kind(is_folder=False)
                self._urls = {shard.name: shard.url for shard in source.shards} if source else {}
            except TagstreamError as error:
                if not self._record.source_root:
                    raise SourceError(f"the originals cannot be found: {error}") from error
                self._urls = {}
        return self._urls


def _read_shard(shards: _Shards, name: str, images: list[ImageRow], gone: str) -> Iterator[Original]:
    file = shards.open(name)
    if file is None:
        yield from (Original(image, None, gone) for image in images)
        return
    # What was labelled may be larger than the limit that others are labelled with.
    limit = max(MAX_SAMPLE_BYTES, *(image.get("n_bytes") or 0 for image in images))
    samples: Any = file.samples(limit)
    with file, contextlib.closing(samples):
        yield from _pick(samples, images)


def _pick(samples: Iterable[Sample], images: list[ImageRow]) -> Iterator[Original]:
    """The images among a shard's samples, in order.

    A sample is known by its place and its key. One of the same key and content is it, too, wherever it stands: another
    version of this package may have counted the samples in front of it in another way.
    """
    places: dict[str, list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image["key"], []).append(place)
    first, n_samples = 0, 0
    for index, sample in enumerate(samples):
        n_samples = index + 1
        by_index = first if images[first]["index"] == index else None
        by_key = next((place for place in places.get(sample.key, ()) if place >= first), None)
        for found in (by_index, by_key):
            if found is None or not _is_it(images[found], index, sample):
                continue
            yield from (Original(image, None, _CHANGED) for image in images[first:found])
            yield _checked(images[found], sample.data)
            first = found + 1
            break
        if first == len(images):
            return
    for image in images[first:]:
        yield Original(image, None, _CHANGED if image["index"] < n_samples else _GONE)


def _is_it(image: ImageRow, index: int, sample: Sample) -> bool:
    if image["index"] == index and image["key"] == sample.key:
        return True
    is_labelled = sample.data is not None and image["content_hash"] is not None
    return (
        is_labelled
        and (image["index"] == index or image["key"] == sample.key)
        and (content_hash(sample.data or b"") == image["content_hash"])
    )


def _read_files(root_url: str, images: Iterator[ImageRow]) -> Iterator[Original]:
    filesystem, root = open_filesystem(root_url)
    while batch := list(islice(images, _FILES_AT_ONCE)):
        safe = [image for image in batch if _is_safe(image)]
        # Not cat(), which would take brackets in a name for a pattern.
        paths = [f"{root}/{image['key']}" for image in safe]
        contents = filesystem.cat_ranges(paths, None, None, on_error="return") if safe else []
        by_id = {image["image_id"]: content for image, content in zip(safe, contents, strict=True)}
        for image in batch:
            content = by_id.get(image["image_id"])
            if isinstance(content, Exception) and is_gone(content):
                content = _read_escaped(filesystem, root, image["key"]) or content
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


def _is_safe(image: ImageRow) -> bool:
    """Whether a key is that of an image below the folder. A path with `..` leads elsewhere, a hidden file was never
    labelled, and one that is not named like an image has to be what was labelled.
    """
    key = image["key"]
    return not is_hidden(key) and (is_image_name(key) or image["content_hash"] is not None)


def _read_escaped(filesystem: Filesystem, root: str, key: str) -> bytes | None:
    """The file whose name is no UTF-8, and stands in its key with escapes; None where there is none."""
    name = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), key.encode())
    return None if name == key.encode() else read_if_exists(filesystem, f"{root}/{os.fsdecode(name)}")


def _checked(image: ImageRow, data: bytes | None) -> Original:
    """The original, unless it is not what was labelled."""
    is_same = data is not None and image["content_hash"] in (None, content_hash(data))
    return Original(image, data) if is_same else Original(image, None, _CHANGED)
