"""Files on local disks and object stores, opened with fsspec; whole-file writes that are never seen half done."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from pipeline.errors import StorageError, TagstreamError
from pipeline.text import one_line

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# fsspec carries no type information.
Filesystem = Any
# The clocks of the storage and of the machines may differ by this much.
CLOCK_SKEW_S = 600
S3_PROTOCOLS = ("s3://", "s3a://")
HTTP_PROTOCOLS = ("http://", "https://")
# fsspec's way to put one filesystem over another: zip://x.jpg::s3://bucket/a.zip. Elsewhere `::` is part of a name.
_CHAIN = re.compile(
    r"[a-z0-9_+-]+(://.*)?::[a-z0-9_+-]+://"
    r"|(zip|tar|libarchive|jar|dir|reference|simplecache|filecache|blockcache)(://.*)?::",
    re.DOTALL,
)
# How long to wait before a storage is asked again that has no retries of its own.
RETRY_WAITS_S = (1.0, 4.0, 16.0)
_HINTS = {"NoCredentialsError": "; set AWS_ACCESS_KEY_ID and the like, or FSSPEC_S3_ANON=true for a public bucket"}
_NO_BACKENDS = frozenset(
    {"builtins", "pipeline", "model", "jobs", "ray", "duckdb", "_duckdb", "pyarrow", "torch", "numpy", "PIL"}
)
_NETWORK_MODULES = frozenset({"asyncio", "ftplib", "http", "imaplib", "socket", "ssl", "urllib", "concurrent"})
_GONE_ERRORS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


def open_filesystem(url: str, **options: Any) -> tuple[Filesystem, str]:
    """The filesystem of a URL or local path, and the path on it.

    S3 is `pipeline.storage.s3`'s. Its listings are not cached: another job may be writing. Raises TagstreamError for an
    unknown protocol.
    """
    try:
        if url.startswith(S3_PROTOCOLS):
            filesystem, path = _open_s3(url, **options)
        elif _CHAIN.match(url):
            filesystem, path = fsspec.core.url_to_fs(url, **options)
        elif url.startswith(HTTP_PROTOCOLS):
            filesystem, path = _open_http(url, **options)
        else:
            filesystem, path = _open_unchained(url, **options)
    except (ValueError, ImportError) as error:
        raise TagstreamError(f"cannot open {url}: {error}") from error
    except Exception as error:
        # Some storages are asked for as little as a path on them.
        if isinstance(error, OSError) or is_of_backend(error):
            raise StorageError(f"cannot open {url}: {one_line(error)}") from error
        raise
    if is_local(filesystem):
        return filesystem, os.path.normpath(path)
    return filesystem, path.rstrip("/") or path


class WatchedStream(io.RawIOBase):
    """A stored file that remembers a failure of its storage.

    Decoders raise OSError for damaged content too. A storage that fails is no property of the file, and reading it
    again may succeed: `failure` tells the two apart. An object that gives fewer bytes than it has is such a failure.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        # Files on object stores know what they have from the storage.
        self._size: int | None = stream.size if isinstance(stream, AbstractBufferedFile) else None
        self.failure: Exception | None = None

    def raise_failure(self) -> None:
        """Raises the storage's failure, if there was one, in the place of what a decoder made of it."""
        if self.failure is not None:
            raise self.failure from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        with self._watched():
            data = self._stream.read(len(view))
            self._check_length(len(data), len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset < 0:
            # A decoder was led there by what it had read: no failure of the storage.
            raise ValueError(f"negative seek value {offset}")
        with self._watched():
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _check_length(self, n_bytes: int, wanted: int) -> None:
        if self._size is None or n_bytes == wanted:
            return
        offset = self._stream.tell()
        if offset < self._size:
            raise OSError(errno.EIO, f"the storage gave no more than {offset} of {self._size} bytes")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = error
            raise


def is_gone(error: Exception) -> bool:
    """Whether a path leads to no file; ValueError is Python's for one that cannot be any (it holds a null byte)."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | ValueError):
        return True
    return isinstance(error, OSError) and error.errno in _GONE_ERRORS


def read_if_exists(filesystem: Filesystem, path: str) -> bytes | None:
    """A small file's content, or None where there is none."""
    try:
        content: bytes = filesystem.cat_file(path)
    except FileNotFoundError:
        return None
    return content


def list_folder(filesystem: Filesystem, path: str) -> list[dict[str, Any]]:
    """What lies in a folder: name, type, size and when it was modified, and on object stores what else these tell.

    Raises FileNotFoundError where there is no such folder.
    """
    if not is_local(filesystem):
        infos: list[dict[str, Any]] = filesystem.ls(path, detail=True)
        return infos
    # Not fsspec's, whose descriptions are three times as large.
    infos = []
    for entry in os.scandir(path):
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat()
            kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
            infos.append({"name": entry.path, "type": kind, "size": status.st_size, "mtime": status.st_mtime})
    return infos


def write_whole(filesystem: Filesystem, path: str, content: bytes, *, if_absent: bool = False) -> bool:
    """Writes a file so that readers see all of it or nothing.

    Locally by writing, syncing and renaming a temporary file; object stores put an object atomically.

    Args:
        if_absent: leave an existing file as it is. On object stores each of several writers of the same content is told
            that it wrote the file: a write whose answer was lost is sent again, and then meets itself.

    Returns: whether the file was written.
    """
    if is_local(filesystem):
        return _write_locally(Path(path), content, if_absent)
    try:
        filesystem.pipe_file(path, content, mode="create" if if_absent else "overwrite")
    except FileExistsError:
        return read_if_exists(filesystem, path) == content
    return True


def move_whole(filesystem: Filesystem, source: Path, path: str) -> None:
    """Moves a local file to where readers see all of it or nothing; locally both must lie on one filesystem."""
    if not is_local(filesystem):
        filesystem.put_file(str(source), path)
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(path)


@contextlib.contextmanager
def open_whole(filesystem: Filesystem, path: str) -> Iterator[IO[bytes]]:
    """A new file that appears under its path when all is written, or not at all.

    Written beside its place, in a folder that is there, and renamed; for an object store written to the local disk and
    uploaded, because closing a half-written upload would publish it.
    """
    folder = Path(path).parent if is_local(filesystem) else Path(tempfile.gettempdir())
    temporary = folder / f".{Path(path).name[:100]}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as stream:
            yield stream
        move_whole(filesystem, temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_local(filesystem: Filesystem) -> bool:
    """Whether files can be renamed in place."""
    return isinstance(filesystem, LocalFileSystem)


def full_url(filesystem: Filesystem, path: str) -> str:
    """A path of the filesystem as something to open elsewhere."""
    return str(Path(path)) if is_local(filesystem) else str(filesystem.unstrip_protocol(path))


def modified_s(info: Mapping[str, Any]) -> float | None:
    """When a listed file was written, seconds since the epoch; None where the listing does not tell."""
    modified = info.get("LastModified") or info.get("mtime")
    if modified is None or isinstance(modified, int | float):
        return modified
    return float(modified.timestamp())


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turns an error of the storage into a StorageError that says what could not be done."""
    try:
        yield
    except TagstreamError:
        raise
    except PermissionError as error:
        raise StorageError(f"cannot {doing}: permission denied ({one_line(error)})") from error
    except Exception as error:
        if isinstance(error, OSError) or is_of_backend(error):
            hint = _HINTS.get(type(error).__name__, "")
            raise StorageError(f"cannot {doing}: {one_line(error)}{hint}") from error
        raise


def may_pass(url: str, error: BaseException) -> bool:
    """Whether an error may be over when its storage is asked again, and nobody below has asked again already.

    S3 and web servers are asked again request by request. Of other storages, some ask again, some do not.
    """
    if isinstance(error, StorageError) and error.__cause__ is not None:
        error = error.__cause__
    if url.startswith((*S3_PROTOCOLS, *HTTP_PROTOCOLS)) or protocol_of(url) == "file":
        return False
    is_final = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError)
    return not is_final and isinstance(error, Exception) and (isinstance(error, OSError) or is_of_backend(error))


def is_of_backend(error: Exception) -> bool:
    """Whether an error is one that a library raises with which fsspec reaches a storage (botocore, httpx, paramiko...).

    They are too many to be named. What is left are errors of Python itself and of libraries that know no storage: those
    are bad data or bad code.
    """
    if isinstance(error, ValueError | TypeError | LookupError | AttributeError | AssertionError):
        return False
    library = type(error).__module__.partition(".")[0]
    return library in _NETWORK_MODULES or library not in _NO_BACKENDS | sys.stdlib_module_names


def protocol_of(url: str) -> str:
    """The protocol of a URL or local path."""
    protocol, separator, _ = url.partition("://")
    return protocol if separator else "file"


def _open_unchained(url: str, **options: Any) -> tuple[Filesystem, str]:
    """As fsspec opens a URL in which it finds no other one."""
    kind: Any = fsspec.get_filesystem_class(protocol_of(url))
    try:
        filesystem = kind(**{**kind._get_kwargs_from_urls(url), **options})
    except TypeError as error:
        raise ValueError(f"this storage needs settings that a URL cannot give: {error}") from error
    return filesystem, kind._strip_protocol(url)


def _open_http(url: str, **options: Any) -> tuple[Filesystem, str]:
    # Brings aiohttp along, which takes a while to import.
    from pipeline.storage.http import RetryingHttp

    return RetryingHttp(**options), url


def _open_s3(url: str, **options: Any) -> tuple[Filesystem, str]:
    # s3fs brings botocore along, which takes a while to import.
    from pipeline.storage.s3 import RetryingS3

    options = {"use_listings_cache": False, **RetryingS3._get_kwargs_from_urls(url), **options}
    return RetryingS3(**options), RetryingS3._strip_protocol(url)


def _write_locally(path: Path, content: bytes, if_absent: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name[:100]}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not if_absent:
            temporary.replace(path)
            return True
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        return True
    finally:
        temporary.unlink(missing_ok=True)
