"""A folder of images as shards.

Files are dealt to a number of buckets by a hash of their path. The number is fixed when a run is made, so a file's
bucket never changes. Files that are added later do not touch the shards that are committed: those that fall into a
committed bucket become its next generation (`bucket-0003-of-0016`, then `bucket-0003-of-0016+1`, ...).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from pipeline.annotations.side_files import SIDE_SUFFIXES, TEXT_SUFFIXES, read_side_files
from pipeline.settings.limits import MAX_SAMPLE_BYTES, MAX_SIDE_FILE_BYTES
from pipeline.sources.sample import Sample, fault, is_image_suffix, make_sample, too_large
from pipeline.sources.shard import FileVersion, ImageFile, Shard
from pipeline.storage.files import Filesystem, is_local, read_if_exists
from pipeline.text import one_line, valid_unicode

_FILES_PER_BUCKET = 500
# A bad sector, a file whose mount is gone, a name that the storage does not take.
_FILE_ERRORS = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR})
_MIN_FILES_OF_A_FAILURE = 10
_GENERATION = re.compile(r"(?P<bucket>bucket-\d+-of-\d+)(\+(?P<generation>[1-9]\d*))?")


def is_image_name(path: str) -> bool:
    """Whether a path below a folder is that of an image; hidden files and folders hold none."""
    return is_image_suffix(suffix_of(path)) and not is_hidden(path)


def is_hidden(path: str) -> bool:
    """Whether any part of a relative path begins with a dot."""
    return path.startswith(".") or "/." in path


def stem_of(path: str) -> str:
    """A path without its file's suffix; side files share it with their image."""
    return path.rpartition(".")[0] if suffix_of(path) else path


def suffix_of(name: str) -> str:
    """Lower-case suffix of a file name, without its dot."""
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[1].lower() if "." in base else ""


def image_files(listing: dict[str, FileVersion], images: Iterable[str] | None = None) -> list[ImageFile]:
    """The images among files given by their path relative to the folder, sorted by path, with their side files.

    Args:
        images: which of the files are images; by default those that are named so.
    """
    side_files: dict[str, dict[str, str]] = {}
    problems: dict[str, list[str]] = {}
    for path in sorted(listing):
        stem, suffix, size = path.rpartition(".")[0], suffix_of(path), listing[path].size
        if suffix not in SIDE_SUFFIXES:
            continue
        if size > MAX_SIDE_FILE_BYTES:
            problem = f"{valid_unicode(path)} has {size} bytes; the limit is {MAX_SIDE_FILE_BYTES}"
            problems.setdefault(stem, []).append(problem)
        else:
            side_files.setdefault(stem, {})[suffix] = path
    files = []
    for path in sorted(filter(is_image_name, listing) if images is None else images):
        stem = stem_of(path)
        beside = side_files.get(stem, {})
        text = next((beside[suffix] for suffix in TEXT_SUFFIXES if suffix in beside), None)
        files.append(
            ImageFile(
                path,
                listing[path],
                text,
                beside.get("json"),
                tuple(problems.get(stem, ())),
                classes=beside.get("cls"),
            )
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
    filesystem: Filesystem, root: str, files: Sequence[ImageFile], max_sample_bytes: int = MAX_SAMPLE_BYTES
) -> Iterator[Sample]:
    """The images of a bucket as samples; one that vanished since it was listed, or cannot be read, is a fault row.

    Raises what the storage raises where it fails as a whole: where the folder cannot be listed any more, or where not
    one of many files can be read.
    """
    n_unread = 0
    for file in files:
        if file.version.size > max_sample_bytes:
            yield too_large(file.key, "the file", file.version.size, max_sample_bytes)
            continue
        try:
            data = read_if_exists(filesystem, f"{root}/{file.path}")
        except OSError as error:
            if not _is_of_the_file(filesystem, error):
                raise
            n_unread += 1
            _check_folder(filesystem, root, n_unread, len(files), error)
            yield fault(file.key, "FileUnreadable", f"it cannot be read: {_reason(error)}")
            continue
        if data is None:
            n_unread += 1
            _check_folder(filesystem, root, n_unread, len(files), None)
            yield fault(file.key, "FileVanished", "it was listed, but is no longer there")
            continue
        yield _sample(filesystem, root, file, data)


def _sample(filesystem: Filesystem, root: str, file: ImageFile, data: bytes) -> Sample:
    problems = list(file.problems)

    def read_side_file(path: str | None) -> bytes | None:
        try:
            return None if path is None else read_if_exists(filesystem, f"{root}/{path}")
        except OSError as error:
            if not _is_of_the_file(filesystem, error):
                raise
            problems.append(f"{valid_unicode(path or '')} cannot be read: {_reason(error)}")
            return None

    described = read_side_files(*map(read_side_file, (file.text, file.description, file.classes)))
    if described.caption is None and file.captions:
        described.caption = "\n".join(file.captions)
    if described.truth is None and file.labels:
        described.truth = list(file.labels)
    return make_sample(file.key, data, described, problems)


def _is_of_the_file(filesystem: Filesystem, error: OSError) -> bool:
    """Whether an error is one of the file, and not of the storage that holds it."""
    # On object stores EIO and the like are what is left of a storage that was asked again and again.
    return isinstance(error, PermissionError) or (is_local(filesystem) and error.errno in _FILE_ERRORS)


def _check_folder(filesystem: Filesystem, root: str, n_unread: int, n_files: int, error: OSError | None) -> None:
    """Raises an error where a file is not to blame: the whole folder cannot be read."""
    if n_unread == 1:
        # Asked once a bucket. A folder whose disk was taken away may be there still, and empty.
        if not (any(os.scandir(root)) if is_local(filesystem) else filesystem.exists(root)):
            raise FileNotFoundError(errno.ENOENT, "the folder is empty now", root)
    elif n_unread == n_files >= _MIN_FILES_OF_A_FAILURE:
        raise error or FileNotFoundError(errno.ENOENT, f"none of {n_files} files is there any more", root)


def _reason(error: OSError) -> str:
    return (error.strerror or one_line(error)).lower()


def folder_shard(root: str, name: str, files: list[ImageFile]) -> Shard:
    """A folder's shard; its etag is a digest of its files' paths, sizes and etags."""
    listing = "\n".join(f"{file.path}\0{file.version.size}\0{file.version.etag}" for file in files)
    etag = hashlib.blake2b(listing.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    size, modified = (
        sum(file.version.size for file in files),
        max((file.version.modified for file in files), default=None),
    )
    return Shard(name, root, "folder", size, etag, modified, tuple(files))
