"""Text for people: without logins, without what steers a terminal, on one line, not too long."""

from __future__ import annotations

import re
from collections.abc import Callable

_MAX_MESSAGE_CHARACTERS = 1000
# What stands where something was concealed.
CONCEALED = "***"

_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
# Signed links carry their signature behind the question mark.
# A sentence that goes on behind the link is not part of it.
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*[^\s'\"),;:.\]]")
# Addresses of chat rooms are secrets in all their parts.
_NOTIFIED = re.compile(r"((?<=')--notify=)[^']*|(--notify[= ])(?:'[^']*'|[^\s']+)")


def conceal(text: str) -> str:
    """The text without names and passwords in URLs, without the queries of web links and without who is notified."""
    return _QUERY.sub(rf"\1?{CONCEALED}", _LOGIN.sub(f"{CONCEALED}@", _NOTIFIED.sub(r"\1\2***", text)))


def valid_unicode(name: str) -> str:
    """A file name as valid Unicode: bytes that are no UTF-8 become backslash escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _as_space(character: str) -> str:
    return " "


def printable(text: str, replace: Callable[[str], str] = _as_space) -> str:
    """Text that cannot steer a terminal, break its line or turn the direction of what stands beside it.

    Args:
        replace: gives what stands in the place of a character that could.
    """
    return text if text.isprintable() else "".join(part if part.isprintable() else replace(part) for part in text)


def plain(message: str) -> str:
    """A message as one printable line and not too long: names of the source, which may be hostile, are part of it."""
    start = message[:_MAX_MESSAGE_CHARACTERS]
    shown = printable(start, lambda character: character.encode("unicode_escape").decode())
    is_whole = len(start) == len(message) and len(shown) <= _MAX_MESSAGE_CHARACTERS
    return shown if is_whole else shown[: _MAX_MESSAGE_CHARACTERS - 3] + "..."


def one_line(error: BaseException) -> str:
    """An error's text as part of a sentence; its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def without_traceback(message: str) -> str:
    """A library's message of which Python's traceback is a part, with the traceback's last line in its place."""
    before, traceback, calls = message.partition("Traceback (most recent call last):")
    return before + calls.strip().split("\n")[-1] if traceback else message


def counted(n: int, thing: str) -> str:
    """A number of things in words: 1 image, 2,000 images."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
