"""Keeps what logs in to a server out of records, logs and messages."""

from __future__ import annotations

import re

_MAX_MESSAGE_CHARACTERS = 1000

_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
# Signed links carry their signature behind the question mark.
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
# Addresses of chat rooms are secrets in all their parts.
_NOTIFIED = re.compile(r"((?<=')--notify=)[^']*|(--notify[= ])(?:'[^']*'|[^\s']+)")


def conceal(text: str) -> str:
    """The text without names and passwords in URLs, without the queries of web links and without who is notified."""
    return _QUERY.sub(r"\1?***", _LOGIN.sub("***@", _NOTIFIED.sub(r"\1\2***", text)))


def printable(name: str) -> str:
    """A file name as valid Unicode: bytes that are no UTF-8 become backslash escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def plain(message: str) -> str:
    """A message as one printable line and not too long: names of the source, which may be hostile, are part of it."""
    start = message[:_MAX_MESSAGE_CHARACTERS]
    shown = "".join(part if part.isprintable() else part.encode("unicode_escape").decode() for part in start)
    is_whole = len(start) == len(message) and len(shown) <= _MAX_MESSAGE_CHARACTERS
    return shown if is_whole else shown[: _MAX_MESSAGE_CHARACTERS - 3] + "..."


def one_line(error: BaseException) -> str:
    """An error's text as part of a sentence; its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def without_traceback(message: str) -> str:
    """A library's message of which Python's traceback is a part, with the traceback's last line in its place."""
    before, traceback, calls = message.partition("Traceback (most recent call last):")
    return before + calls.strip().split("\n")[-1] if traceback else message
