"""A folder of images as shards.

Files are dealt to a number of buckets by a hash of their path. The number is fixed when a run is made, so a file's
bucket never changes. Files that are added later do not touch the shards that are committed: those that fall into a
committed bucket become its next generation (`bucket-0003-of-0016`, then `bucket-0003-of-0016+1`, ...).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from pipeline.settings.limits import MAX_SAMPLE_BYTES, MAX_SIDE_FILE_BYTES
from pipeline.sources.sample import IMAGE_SUFFIXES, Sample, fault, make_sample, too_large
from pipeline.sources.shard import FileVersion, ImageFile, Shard
from pipeline.storage.files import Filesystem, read_if_exists
from pipeline.text import valid_unicode

_FILES_PER_BUCKET = 500
_GENERATION = re.compile(r"(?P<bucket>bucket-\d+-of-\d+)(\+(?P<generation>[1-9]\d*))?")


def is_image_name(path: str) -> bool:
    """Whether a path below a folder is that of an image; hidden files and folders hold none."""
    return suffix_of(path) in IMAGE_SUFFIXES and not is_hidden(path)


def is_hidden(path: str) -> bool:
    """Whether any part of a relative path begins with a dot."""
    return path.startswith(".") or "/." in path


def suffix_of(name: str) -> str:
    """Lower-case suffix of a file name, without its dot."""
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[1].lower() if "." in base else ""


def image_files(listing: dict[str, FileVersion]) -> list[ImageFile]:
    """The images among files given by their path relative to the folder, sorted by path."""
    side_files: dict[str, dict[str, str]] = {}
    problems: dict[str, list[str]] = {}
    for path in sorted(listing):
        stem, suffix, size = path.rpartition(".")[0], suffix_of(path), listing[path].size
        if suffix not in ("txt", "json"):
            continue
        if size > MAX_SIDE_FILE_BYTES:
            problem = f"{valid_unicode(path)} has {size} bytes; the limit is {MAX_SIDE_FILE_BYTES}"
            problems.setdefault(stem, []).append(problem)
        else:
            side_files.setdefault(stem, {})[suffix] = path
    files = []
    for path in sorted(filter(is_image_name, listing)):
        stem = path.rpartition(".")[0]
        beside = side_files.get(stem, {})
        files.append(
            ImageFile(path, listing[path], beside.get("txt"), beside.get("json"), tuple(problems.get(stem, ())))
        )
    return files


def count_buckets(n_files: int) -> int:
    """How many buckets a new run cuts a folder of this many images into."""
    return max(1, -(-n_files // _FILES_PER_BUCKET))


def deal(files: Iterable[ImageFile], n_buckets: int) -> dict[str, list[ImageFile]]:
    """Files by the name of their bucket, in order; empty buckets are left out."""
    buckets: dict[str, list[ImageFile]] = {}
    for file in files:
        digest = hashlib.blake2b(file.path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        number = int.from_bytes(digest) % n_buckets
        buckets.setdefault(f"bucket-{number:04d}-of-{n_buckets:04d}", []).append(file)
    return dict(sorted(buckets.items()))


def generation_name(bucket: str, generation: int) -> str:
    return bucket if generation == 0 else f"{bucket}+{generation}"


def split_generation(name: str) -> tuple[str, int]:
    """The bucket and the generation that a shard's name says; for other names, one that no bucket has."""
    match = _GENERATION.fullmatch(name)
    return (match["bucket"], int(match["generation"] or 0)) if match else ("", 0)


def read_files(
    filesystem: Filesystem, root: str, files: Iterable[ImageFile], max_sample_bytes: int = MAX_SAMPLE_BYTES
) -> Iterator[Sample]:
    """The images of a bucket as samples; a file that vanished since it was listed becomes a fault row."""
    for file in files:
        if file.version.size > max_sample_bytes:
            yield too_large(file.key, "the file", file.version.size, max_sample_bytes)
            continue
        data = read_if_exists(filesystem, f"{root}/{file.path}")
        if data is None:
            yield fault(file.key, "FileVanished", "it was listed, but is no longer there")
            continue
        text, description = (
            None if path is None else read_if_exists(filesystem, f"{root}/{path}")
            for path in (file.text, file.description)
        )
        yield make_sample(file.key, data, text, description, file.problems)


def folder_shard(root: str, name: str, files: list[ImageFile]) -> Shard:
    """A folder's shard; its etag is a digest of its files' paths, sizes and etags."""
    listing = "\n".join(f"{file.path}\0{file.version.size}\0{file.version.etag}" for file in files)
    etag = hashlib.blake2b(listing.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    size, modified = (
        sum(file.version.size for file in files),
        max((file.version.modified for file in files), default=None),
    )
    return Shard(name, root, "folder", size, etag, modified, tuple(files))
