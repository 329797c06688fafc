"""Sends a command's summary to a receiver: by POST to a web address, or to a program's standard input.

A web address may be a secret, as the addresses of chat rooms are. So messages name its host alone.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from pipeline.errors import TagstreamError
from pipeline.text import conceal

_TIMEOUT_S = 10.0
_WAITS_S = (1.0, 4.0)
_COMMAND_TIMEOUT_S = 60.0
# Answers that ask to try again later, or that say that the server is in trouble.
_REPEATED = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_TOLD = 300


class Receiver(Protocol):
    """Takes the JSON of a summary."""

    def notify(self, content: bytes) -> None:
        """Hands the JSON over. Raises TagstreamError where that fails."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A web address that JSON is sent to by POST."""

    url: str
    login: str = ""
    """Name and password for basic authentication, as name:password; empty for none."""

    @property
    def host(self) -> str:
        """Scheme and host, the part of the address that messages may show."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def notify(self, content: bytes) -> None:
        """Posts the JSON; tries again twice where the server is out of reach or in trouble."""
        for wait_s in (*_WAITS_S, None):
            problem, is_repeated = self._post(content)
            if problem is None:
                return
            if wait_s is None or not is_repeated:
                break
            time.sleep(wait_s)
        raise TagstreamError(f"{self.host} was not notified: {problem}")

    def _post(self, content: bytes) -> tuple[str | None, bool]:
        """What went wrong, None for nothing, and whether another try may succeed."""
        headers = {"Content-Type": "application/json", "User-Agent": "tagstream"}
        if self.login:
            headers["Authorization"] = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        request = urllib.request.Request(self.url, content, headers, method="POST")
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_S):
                return None, False
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answered {error.code}", error.code in _REPEATED
        except urllib.error.URLError as error:
            return type(error.reason).__name__ if isinstance(error.reason, OSError) else str(error.reason), True
        except (OSError, HTTPException) as error:
            return type(error).__name__, True


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would turn the POST into a GET without content."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True)
class Program:
    """A command that reads JSON from its standard input. It runs without a shell."""

    words: tuple[str, ...]

    def notify(self, content: bytes) -> None:
        """Runs the command to its end, for a minute at most."""
        # Files, not pipes: a process that the command leaves behind could hold a pipe open for ever.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as told:
            given.write(content)
            given.seek(0)
            streams = {"stdin": given, "stdout": subprocess.DEVNULL, "stderr": told}
            try:
                process = subprocess.Popen(self.words, **streams, start_new_session=True)  # type: ignore[call-overload]
            except OSError as error:
                raise TagstreamError(f"{self.words[0]} was not notified: {error.strerror}") from error
            code = _wait(process)
            told.seek(0)
            last = told.read().decode(errors="replace").strip().split("\n")[-1]
        if code is None:
            raise TagstreamError(f"{self.words[0]} was stopped, having read for {_COMMAND_TIMEOUT_S:.0f} s")
        if code:
            said = f": {conceal(last)[:_MAX_TOLD]}" if last else ""
            raise TagstreamError(f"{self.words[0]} failed with exit code {code}{said}")


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of the process; None where it was killed after a minute."""
    code = None
    try:
        code = process.wait(_COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code


def find_receiver(text: str) -> Receiver:
    """The receiver that this text names. Raises TagstreamError where it is neither a web address nor a command."""
    if text.startswith(("http://", "https://")):
        return _webhook(text)
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise TagstreamError(f"the command to notify cannot be read: {error}") from error
    if not words or shutil.which(words[0]) is None:
        # A mistyped address is still a secret.
        shown = "what was given" if "://" in text else repr(words[0] if words else text)
        raise TagstreamError(f"{shown} cannot be notified; expected http(s)://... or a command that is installed here")
    return Program(words)


def _webhook(url: str) -> Webhook:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not url.isascii() or any(sign.isspace() for sign in url):
        raise TagstreamError("the address to notify is no http(s)://host/...")
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    bracketed = f"[{host}]" if ":" in host else host
    netloc = bracketed if port is None else f"{bracketed}:{port}"
    return Webhook(urlunsplit((parts.scheme, netloc, parts.path, parts.query, "")), login)
