"""A folder of images as shards.

Files are dealt to a number of buckets by a hash of their path. The number is fixed when a run is made, so a file's
bucket never changes. Files that are added later do not touch the shards that are committed: those that fall into a
committed bucket become its next generation (`bucket-0003-of-0016`, then `bucket-0003-of-0016+1`, ...).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.sample import IMAGE_SUFFIXES, MAX_SAMPLE_BYTES, Sample, fault, make_sample, printable
from pipeline.storage import Filesystem

_FILES_PER_BUCKET = 500


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image below the folder, with the side files that lie next to it."""

    path: str
    """Relative to the folder."""
    size: int
    modified: float
    """Seconds since the epoch."""
    has_text: bool
    has_description: bool

    @property
    def key(self) -> str:
        """The sample's key: the path with its suffix, as valid Unicode."""
        return printable(self.path)


def is_image_name(name: str) -> bool:
    return suffix_of(name) in IMAGE_SUFFIXES and not name.rsplit("/", 1)[-1].startswith(".")


def suffix_of(name: str) -> str:
    """Lower-case suffix of a file name, without its dot."""
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[1].lower() if "." in base else ""


def image_files(listing: dict[str, tuple[int, float]]) -> list[ImageFile]:
    """The images among a listing {relative path: (size in bytes, modification time)}, sorted by path."""
    files = []
    for path in sorted(filter(is_image_name, listing)):
        stem = path.rsplit(".", 1)[0]
        files.append(ImageFile(path, *listing[path], f"{stem}.txt" in listing, f"{stem}.json" in listing))
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


def read_files(filesystem: Filesystem, root: str, files: Iterable[ImageFile]) -> Iterator[Sample]:
    """The images of a bucket as samples; a file that vanished since it was listed becomes a fault row."""
    for file in files:
        path, stem = f"{root}/{file.path}", f"{root}/{file.path.rsplit('.', 1)[0]}"
        if file.size > MAX_SAMPLE_BYTES:
            message = f"the file has {file.size} bytes; the limit is {MAX_SAMPLE_BYTES}"
            yield fault(file.key, "MemberTooLarge", message)
            continue
        try:
            data = filesystem.cat_file(path)
            text = filesystem.cat_file(f"{stem}.txt") if file.has_text else None
            description = filesystem.cat_file(f"{stem}.json") if file.has_description else None
        except FileNotFoundError as error:
            yield fault(file.key, "FileVanished", f"listed, but no longer there when it was read: {error}")
            continue
        yield make_sample(file.key, data, text, description)
