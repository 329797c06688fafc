"""S3 that is asked again where it fails for a moment, and says so in one sentence where it fails for good.

s3fs repeats what botocore, below it, has repeated already: by default a request whose connection is cut each time is
sent 250 times. Here each has its part. botocore repeats requests, waiting longer each time and for a random part of it;
s3fs repeats reads whose body broke off. Both as often as `AWS_MAX_ATTEMPTS` says.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import botocore.session
from aiohttp import ClientPayloadError
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError
from s3fs import S3FileSystem
from s3fs.core import S3_RETRYABLE_ERRORS
from s3fs.errors import translate_boto_error

from pipeline.text import one_line

# About half a minute of waiting in all: longer than a store needs to move a busy prefix to more machines.
_MAX_ATTEMPTS = 8
_MAX_WAIT_S = 20.0
# s3fs waits longer after each body that broke off, but all readers for the same time.
_BODY_JITTER_S = 0.5
# botocore's `standard` mode does not know these: throttling by stores that are not Amazon's, and a conditional write
# that met another one to the same key.
_ALSO_REPEATED = (409, 429)


class RetryingS3(S3FileSystem):
    """s3fs with bounded retries. The user's own settings of retries (`AWS_*`, ~/.aws/config) go before."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        session = botocore.session.Session()
        attempts = session.get_config_variable("max_attempts")
        # s3fs repeats reads as often as this says.
        self.retries = _MAX_ATTEMPTS if attempts is None else max(1, attempts)
        self._retry_settings: dict[str, Any] = {"total_max_attempts": self.retries}
        if not os.environ.get("AWS_RETRY_MODE") and "retry_mode" not in session.get_scoped_config():
            self._retry_settings["mode"] = "standard"

    def _prepare_config_kwargs(self) -> dict[str, Any]:
        return {"retries": dict(self._retry_settings), **super()._prepare_config_kwargs()}

    async def set_session(self, refresh: bool = False, kwargs: dict[str, Any] = {}) -> Any:  # noqa: B006
        """The client, which also repeats what botocore takes for final."""
        client = await super().set_session(refresh, kwargs)
        client.meta.events.register("needs-retry.s3", self._wait_s, unique_id="tagstream-retries")
        return client

    def _wait_s(self, response: Any, attempts: int, **_: Any) -> float | None:
        if response is None or attempts >= self.retries or response[0].status_code not in _ALSO_REPEATED:
            return None
        return random.random() * min(2.0 ** (attempts - 1), _MAX_WAIT_S)

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        """Sends a request. What fails here was repeated by botocore: its error is none that s3fs would repeat again."""
        await self.set_session()
        call = getattr(await self.get_s3(kwargs.get("Bucket")), method)
        arguments = self._get_s3_method_kwargs(call, *akwarglist, **kwargs)
        try:
            answer = await call(**arguments)
        except ClientError as error:
            raise _explained(error, arguments) from error
        except (HTTPClientError, ConnectionError) as error:
            raise OSError(errno.EIO, f"{one_line(error)} (given up after {self.retries} attempts)") from error
        if method == "get_object":
            answer["Body"].read = functools.partial(_read_body, answer["Body"].read, self.retries)
        return answer


async def _read_body(read: Callable[..., Awaitable[bytes]], attempts: int, *length: int) -> bytes:
    """Reads of a body; the error of one that breaks off is one that s3fs repeats, and the last one is seen by users."""
    try:
        return await read(*length)
    except S3_RETRYABLE_ERRORS as error:
        await asyncio.sleep(random.random() * _BODY_JITTER_S)
        text = f"the answer broke off: {one_line(error)} (given up after {attempts} attempts)"
        raise ClientPayloadError(text) from error


def _explained(error: ClientError, arguments: dict[str, Any]) -> Exception:
    """The error in Python's terms, with what S3 says of it and how often it said so."""
    details, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code = str(details.get("Code", ""))
    if code in ("PreconditionFailed", "412") and "IfNoneMatch" in arguments:
        # s3fs wants to be told the condition, which only Amazon's answer names.
        return FileExistsError(errno.EEXIST, "it exists", arguments.get("Key"))
    attempts = metadata.get("RetryAttempts", 0) + 1
    tried = f" (given up after {attempts} attempts)" if attempts > 1 else ""
    text = f"{code} {details.get('Message', '')} at {error.operation_name}{tried}"
    translated: Exception = translate_boto_error(error, message=" ".join(text.split()), set_cause=False)
    return translated
