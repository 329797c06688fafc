"""Packs a folder of images into WebDataset shards.

A sample's key is the image's path relative to the folder, without its suffix. WebDataset ends a key at the first dot of
the file name and takes neighbours of one key for one sample. Hence, so that no two images share a key:

- `%` and control characters are written as `%25`, `%0A`, ...; a dot in the file name as `%2E`: the key of `a.b.jpg` is
  `a%2Eb`;
- images that differ only in their suffix get it: `x.jpg` beside `x.png` has the key `x%jpg`;
- a first underscore becomes `%5F` where WebDataset would skip the path (`__name__/...`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import webdataset

from pipeline.annotations.annotation import Annotation, Annotations
from pipeline.annotations.captions import match_files, read_captions
from pipeline.errors import SourceError, TagstreamError
from pipeline.sources.contents import EXPECTED
from pipeline.sources.folder_metadata import read_metadata
from pipeline.sources.image_folder import stem_of, suffix_of
from pipeline.sources.listing import find_source
from pipeline.sources.originals import content_suffix
from pipeline.sources.sample import IMAGE_SUFFIXES
from pipeline.sources.shard import Source
from pipeline.storage.files import Filesystem, is_local, open_filesystem, open_whole, storage_errors

DEFAULT_SHARD_SIZE = 1000
# What is read at once: concurrently from object stores, and never more than fits into memory.
_BATCH_FILES, _BATCH_BYTES = 64, 64 << 20
_MIN_DIGITS = 5
_SKIPPED_BY_WEBDATASET = re.compile(r"__[^/]*__/")


class PackError(TagstreamError):
    """A folder that cannot be packed, or a place that cannot be packed to."""


@dataclass(kw_only=True, slots=True)
class PackReport:
    """What was packed."""

    n_shards: int = 0
    n_samples: int = 0
    n_bytes: int = 0
    """Size of all shards together in bytes."""
    n_annotated: int = 0
    """Samples with captions or labels (or, without captions files, with side files)."""
    unmatched: list[str] = field(default_factory=list)
    """Names in the captions files that are no image of the folder."""
    problems: list[str] = field(default_factory=list)
    """Entries of the captions files that cannot be taken, each in a sentence."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many files of the folder are no images, by kind; most first."""


@dataclass(frozen=True, slots=True)
class _Item:
    """An image to pack, with paths relative to the folder."""

    key: str
    image: str
    size: int
    side_files: dict[str, str]
    """Paths of the side files by their suffix."""


def pack_folder(
    folder: str, out: str, *, captions: Sequence[str] = (), shard_size: int = DEFAULT_SHARD_SIZE
) -> PackReport:
    """Writes the images below a folder as `00000.tar`, `00001.tar`, ..., sorted by path, their bytes untouched.

    `.txt` holds an image's captions, one a line, `.json` its captions and labels (and width and height where they are
    given). The same input gives the same bytes. Shards appear one by one, each when it is whole.

    Args:
        folder, out: local paths or URLs. `out` must be new or empty.
        captions: files that `read_captions` understands. Without any, `x.txt` and `x.json` beside `x.jpg` go along as
            they are, and the folder's metadata.jsonl and metadata.csv are taken.
        shard_size: samples a shard, 1 or more.

    Raises PackError, CaptionsError or StoreError.
    """
    if shard_size < 1:
        raise PackError(f"the shard size is {shard_size}; expected 1 or more")
    source, root = open_filesystem(folder)
    target, out_path = open_filesystem(out)
    with storage_errors(f"list {out}"):
        _check_empty(target, out_path, out)
    with storage_errors(f"list {folder}"):
        found = _find_images(source, root, folder)
    items = _list_items(found, with_side_files=not captions)
    report = PackReport(skipped=found.skipped)
    if captions:
        annotations = _annotations_of(items, captions, folder, report)
    else:
        annotations, report.problems = read_metadata(found.root, found.images)
        report.n_annotated = sum(bool(item.side_files) or item.image in annotations for item in items)
    n_shards = -(-len(items) // shard_size)
    n_digits = max(_MIN_DIGITS, len(str(n_shards - 1)))
    for number in range(n_shards):
        shard = items[number * shard_size : (number + 1) * shard_size]
        with storage_errors(f"pack {folder} into {out}"):
            path = f"{out_path}/{number:0{n_digits}d}.tar"
            _write_shard(target, path, _samples(source, root, shard, annotations), report)
        report.n_shards += 1
    return report


def sample_keys(images: Sequence[str]) -> list[str]:
    """The key of each image, given all paths relative to the folder; the module says how they are made."""
    stems = [stem_of(image) for image in images]
    n_images = Counter(stems)
    keys = []
    for image, stem in zip(images, stems, strict=True):
        parent, slash, base = stem.rpartition("/")
        key = _escape(parent, "%") + slash + _escape(base, "%.")
        if n_images[stem] > 1:
            # An escape is % and two hexadecimal digits, which no image's suffix begins with.
            key += "%" + image[len(stem) + 1 :]
        keys.append("%5F" + key[1:] if _SKIPPED_BY_WEBDATASET.match(key) else key)
    return keys


def _escape(text: str, characters: str) -> str:
    return re.sub(rf"[{re.escape(characters)}\x00-\x1f\x7f]", lambda match: f"%{ord(match[0]):02X}", text)


def _check_empty(filesystem: Filesystem, path: str, out: str) -> None:
    listed = filesystem.ls(path, detail=False) if filesystem.exists(path) else []
    # Object stores may list a folder in itself when all files in it are deleted.
    if filesystem.isfile(path) or any(name.rstrip("/") != path for name in listed):
        raise PackError(f"{out} exists and is not empty; empty it or give another place")


def _find_images(filesystem: Filesystem, root: str, folder: str) -> Source:
    """The images of the folder as labelling would find them. Raises PackError where there are none."""
    if filesystem.isfile(root):
        raise PackError(f"{folder} is a file; expected a folder of images")
    try:
        source = find_source(folder).of_kind(is_folder=True)
    except SourceError as error:
        images = ", ".join(sorted(IMAGE_SUFFIXES))
        raise PackError(f"{str(error).removesuffix(EXPECTED)}expected {images} in it or below") from error
    if source is None:
        raise PackError(f"{folder} holds shards, and no image beside them; expected a folder of images")
    return source


def _list_items(source: Source, *, with_side_files: bool) -> list[_Item]:
    paths = [image.path for image in source.images]
    items = []
    for key, image in zip(sample_keys(paths), source.images, strict=True):
        side_files = {suffix_of(path): path for path in image.side_files} if with_side_files else {}
        items.append(_Item(key, image.path, image.version.size, side_files))
    return items


def _annotations_of(items: list[_Item], captions: Sequence[str], folder: str, report: PackReport) -> Annotations:
    """The annotations by image; the report is told how many have any, and of names that match none."""
    given = read_captions(captions)
    report.problems = given.problems
    matched, report.unmatched = match_files(given.annotations, (item.image for item in items))
    report.n_annotated = sum(not annotation.is_empty for annotation in matched.values())
    if not report.n_annotated:
        example = f", e.g. {report.unmatched[0]}" if report.unmatched else ""
        raise PackError(
            f"{', '.join(captions)} has no caption or label for any of the {len(items)} images of {folder}, e.g. "
            f"{items[0].image}, but for {len(report.unmatched)} others{example}; name files by their path in the folder"
        )
    return matched


def _samples(
    filesystem: Filesystem, root: str, items: Sequence[_Item], annotations: Annotations
) -> Iterator[dict[str, Any]]:
    """Samples as webdataset's writer takes them; at most one batch is in memory."""
    for batch in _batches(items):
        files = [file for item in batch for file in (item.image, *item.side_files.values())]
        # Not cat(), which would take brackets and stars in a name for a pattern.
        contents = filesystem.cat_ranges([f"{root}/{file}" for file in files], None, None, on_error="raise")
        by_file = dict(zip(files, contents, strict=True))
        for item in batch:
            data = by_file[item.image]
            sample: dict[str, Any] = {"__key__": item.key, _usual_suffix(item.image, data): data}
            sample |= {suffix: by_file[file] for suffix, file in item.side_files.items()}
            if item.image in annotations:
                # What lies beside the image itself comes first.
                sample = {**_side_files_of(annotations[item.image]), **sample}
            yield sample


def _usual_suffix(image: str, data: bytes) -> str:
    """The suffix of a member, which other readers must know, too: that of the file, or of what it begins like."""
    suffix = suffix_of(image)
    return suffix if suffix in IMAGE_SUFFIXES else content_suffix(data)


def _batches(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    n_bytes = 0
    for item in items:
        if batch and (len(batch) == _BATCH_FILES or n_bytes + item.size > _BATCH_BYTES):
            yield batch
            batch, n_bytes = [], 0
        batch.append(item)
        n_bytes += item.size
    yield batch


def _side_files_of(annotation: Annotation) -> dict[str, bytes]:
    """`.json` for every image that the captions files list, `.txt` where it has captions."""
    sizes = {"width": annotation.width, "height": annotation.height}
    content = {
        "captions": annotation.captions,
        "labels": sorted(annotation.labels),
        **{name: size for name, size in sizes.items() if size is not None},
    }
    side_files = {"json": json.dumps(content, ensure_ascii=False).encode()}
    if annotation.captions:
        side_files["txt"] = "\n".join(annotation.captions).encode()
    return side_files


def _write_shard(filesystem: Filesystem, path: str, samples: Iterator[dict[str, Any]], report: PackReport) -> None:
    if is_local(filesystem):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open_whole(filesystem, path) as stream:
        # Long and non-ASCII names need the PAX format; a fixed time makes the bytes depend on the samples alone.
        with webdataset.TarWriter(stream, encoder=False, mtime=0, format="PAX_FORMAT") as writer:
            for sample in samples:
                writer.write(sample)
                report.n_samples += 1
        report.n_bytes += stream.tell()
