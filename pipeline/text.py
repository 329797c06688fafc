"""Keeps what logs in to a server out of records, logs and messages."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
# Signed links carry their signature behind the question mark.
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
# Addresses of chat rooms are secrets in all their parts.
_NOTIFIED = re.compile(r"((?<=')--notify=)[^']*|(--notify[= ])(?:'[^']*'|[^\s']+)")


def conceal(text: str) -> str:
    """The text without names and passwords in URLs, without the queries of web links and without who is notified."""
    return _QUERY.sub(r"\1?***", _LOGIN.sub("***@", _NOTIFIED.sub(r"\1\2***", text)))
