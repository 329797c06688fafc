"""Web servers that are asked again where they fail for a moment, and whose refusals are told with their code.

fsspec asks once, takes every refusal for a file that is not there, and needs a server that gives ranges.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import random
import tempfile
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import IO, Any, TypeVar

import aiohttp
from fsspec.asyn import sync, sync_wrapper
from fsspec.implementations.http import HTTPFile, HTTPFileSystem

from pipeline.text import one_line

_MAX_ATTEMPTS = 8
_MAX_WAIT_S = 20.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
# Answers that ask to try again later, or that say that the server is in trouble.
_REPEATED = frozenset({408, 425, 429, 500, 502, 503, 504})
_BROKEN = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError)
_PIECE_BYTES = 1 << 20
# Compressed on the fly, a file would have neither its size nor its bytes.
_HEADERS = {"Accept-Encoding": "identity"}
_Answer = TypeVar("_Answer")


class _BusyError(Exception):
    """An answer after which another try may succeed."""

    def __init__(self, text: str, wait_s: float | None) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class RetryingHttp(HTTPFileSystem):
    """fsspec's web servers with bounded retries, refusals in words, and files of servers that give no ranges."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"client_kwargs": {"timeout": _TIMEOUT}, **kwargs})

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        """What the server tells of a file: size in bytes, ETag, and as `partial` whether it gives ranges.

        Asked with a GET of one byte: some servers refuse HEAD, and none tells there whether it gives ranges.
        """

        async def ask(answer: aiohttp.ClientResponse) -> dict[str, Any]:
            headers = answer.headers
            is_partial = answer.status == HTTPStatus.PARTIAL_CONTENT
            told = headers.get("Content-Range", "").rpartition("/")[2] if is_partial else headers.get("Content-Length")
            size = int(told) if told and told.isdigit() and not headers.get("Content-Encoding") else None
            known = {name: headers[name] for name in ("ETag", "Last-Modified") if name in headers}
            return {"name": url, "type": "file", "size": size, "partial": is_partial, **known}

        try:
            return await self.repeated(url, ask, {"Range": "bytes=0-0"})
        except _EmptyFileError:
            return {"name": url, "type": "file", "size": 0, "partial": False}

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if start is not None or end is not None:
            content: bytes = await super()._cat_file(url, start, end, **kwargs)
            return content
        return await self.repeated(url, lambda answer: answer.read())

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_type: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """A file to read. Where the server gives no ranges it comes in one piece: one that is read from front to back
        (cache `readahead`) as it arrives, any other by way of the local disk.
        """
        info = self.info(path)
        if info["partial"] and info["size"]:
            session = sync(self.loop, self.set_session)
            options = {"block_size": block_size or self.block_size, "cache_type": cache_type or self.cache_type}
            return _RangeFile(self, path, session=session, mode=mode, size=info["size"], loop=self.loop, **options)
        stream = _Stream(self, path)
        return stream if cache_type == "readahead" else _on_disk(stream)

    async def repeated(
        self,
        url: str,
        take: Callable[[aiohttp.ClientResponse], Awaitable[_Answer]],
        headers: dict[str, str] | None = None,
    ) -> _Answer:
        """What is taken of an answer; asked for again where server or connection fail for a moment.

        Raises FileNotFoundError, PermissionError or OSError with the server's code.
        """
        session = await self.set_session()

        async def ask() -> _Answer:
            async with session.get(self.encode_url(url), headers={**_HEADERS, **(headers or {})}) as answer:
                _check(answer)
                return await take(answer)

        return await tried_again(ask)

    def open_answer(self, url: str) -> aiohttp.ClientResponse:
        """An answer whose body is to be read."""

        async def ask() -> aiohttp.ClientResponse:
            session = await self.set_session()
            answer: aiohttp.ClientResponse = await session.get(self.encode_url(url), headers=_HEADERS)
            _check(answer)
            return answer

        answer: aiohttp.ClientResponse = sync(self.loop, tried_again, ask)
        return answer


async def tried_again(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Asks, and where that fails for a moment asks again, waiting longer each time and for a random part of it."""
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            return await ask()
        except (_BusyError, *_BROKEN) as error:
            if attempt == _MAX_ATTEMPTS:
                raise OSError(f"{one_line(error)} (given up after {attempt} attempts)") from error
            told_s = error.wait_s if isinstance(error, _BusyError) else None
            wait_s = told_s if told_s is not None else random.random() * 2.0 ** (attempt - 1)
            await asyncio.sleep(min(wait_s, _MAX_WAIT_S))
    raise AssertionError("the last attempt returns or raises")


class _EmptyFileError(OSError):
    """A file that has no first byte."""


def _check(answer: aiohttp.ClientResponse) -> None:
    """Raises the error that a refusal means."""
    status = answer.status
    if status < HTTPStatus.BAD_REQUEST:
        return
    text = f"{status} {answer.reason or ''}".strip()
    if status in _REPEATED:
        wait = answer.headers.get("Retry-After", "")
        raise _BusyError(text, float(wait) if wait.isdigit() else None)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise FileNotFoundError(text)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise PermissionError(text)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise _EmptyFileError(text)
    raise OSError(text)


class _RangeFile(HTTPFile):
    """A file of which any part may be asked for."""

    async def async_fetch_range(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, the latter excluded."""

        async def take(answer: aiohttp.ClientResponse) -> bytes:
            if answer.status != HTTPStatus.PARTIAL_CONTENT:
                raise OSError("the server gave a range before, and now does not")
            return await answer.read()

        return await self.fs.repeated(self.url, take, {"Range": f"bytes={start}-{end - 1}"})

    _fetch_range = sync_wrapper(async_fetch_range)


class _Stream(io.RawIOBase):
    """A file in one piece, as it arrives. Where it breaks off it is asked for again, and passed over as far as read."""

    def __init__(self, filesystem: RetryingHttp, url: str) -> None:
        self._filesystem, self._url = filesystem, url
        self._answer: aiohttp.ClientResponse | None = None
        self._arrived = 0
        """Bytes that the present answer has given."""
        self._position = 0
        self._reopen()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place; one that was passed already is reached from the beginning."""
        if whence == os.SEEK_END:
            raise io.UnsupportedOperation("the end of a file that arrives in one piece is not known")
        self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                data = self._read(len(view))
                break
            except _BROKEN as error:
                if attempt == _MAX_ATTEMPTS:
                    text = f"the answer broke off: {one_line(error)} (given up after {attempt} attempts)"
                    raise OSError(errno.EIO, text) from error
                self._reopen()
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._answer is not None:
            self._filesystem.loop.call_soon_threadsafe(self._answer.close)
            self._answer = None
        super().close()

    def _read(self, size: int) -> bytes:
        if self._arrived > self._position:
            self._reopen()
        while self._arrived < self._position:
            if not self._next(min(_PIECE_BYTES, self._position - self._arrived)):
                return b""
        data = self._next(size)
        self._position += len(data)
        return data

    def _next(self, size: int) -> bytes:
        assert self._answer is not None
        data: bytes = sync(self._filesystem.loop, self._answer.content.read, size)
        self._arrived += len(data)
        return data

    def _reopen(self) -> None:
        if self._answer is not None:
            self._filesystem.loop.call_soon_threadsafe(self._answer.close)
        self._answer = self._filesystem.open_answer(self._url)
        self._arrived = 0


def _on_disk(stream: _Stream) -> IO[bytes]:
    """All of a file on the local disk, where any part of it can be read."""
    with stream:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 (closed by its reader)
        while piece := stream.read(_PIECE_BYTES):
            copy.write(piece)
    copy.seek(0)
    return copy
