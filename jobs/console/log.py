"""Messages on stderr: plain lines, or with `--log-format json` one JSON object a line.

Every JSON line has a time, a level and a message. It names run and job as soon as they are known, and shard and
counters where the message is about them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from pipeline.text import conceal

# Stands for the time in a line that another process writes later.
TIME_MARK = "@TIME@"
_SPOKEN = logging.getLogger("jobs")
_PIPELINE = logging.getLogger("pipeline")


class _Lines(logging.Formatter):
    """Plain lines: the message alone."""

    def format(self, record: logging.LogRecord) -> str:
        return getattr(record, "prefix", "") + conceal(record.getMessage())


class _JsonLines(logging.Formatter):
    """JSON lines: one object a record."""

    def __init__(self) -> None:
        super().__init__()
        self.identify: Callable[[], dict[str, str]] = dict

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, Any] = {
            "time": getattr(record, "time", time),
            "level": record.levelname.lower(),
            **{name: value for name, value in self.identify().items() if value},
            "message": conceal(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["traceback"] = conceal(self.formatException(record.exc_info))
        return json.dumps(values)


class _Stderr(logging.Handler):
    """Writes to whatever sys.stderr is at the time of the message."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


_HANDLER = _Stderr()
_HANDLER.setFormatter(_Lines())
_SPOKEN.addHandler(_HANDLER)
_SPOKEN.setLevel(logging.INFO)
_SPOKEN.propagate = False


def start_log(log_format: str) -> None:
    """Chooses the format of all later messages: "text" or "json".

    A JSON log also has the warnings of libraries, and a line of the pipeline for each shard.
    """
    as_json = log_format == "json"
    _HANDLER.setFormatter(_JsonLines() if as_json else _Lines())
    _PIPELINE.setLevel(logging.INFO if as_json else logging.NOTSET)
    logging.captureWarnings(as_json)
    root = logging.getLogger()
    (root.addHandler if as_json else root.removeHandler)(_HANDLER)


def is_json() -> bool:
    """Whether messages are JSON lines."""
    return isinstance(_HANDLER.formatter, _JsonLines)


def identify_by(identify: Callable[[], dict[str, str]]) -> None:
    """Adds the fields that `identify` returns to every later JSON line."""
    if isinstance(_HANDLER.formatter, _JsonLines):
        _HANDLER.formatter.identify = identify


def say(message: str, *, level: int = logging.INFO, prefix: str = "", **fields: Any) -> None:
    """Writes a message to stderr.

    Args:
        message: one sentence or line.
        level: a level of `logging`; only a JSON line shows it.
        prefix: start of a plain line, such as "Error: "; a JSON line has its level instead.
        fields: further fields of a JSON line.
    """
    _SPOKEN.log(level, "%s", message, extra={"prefix": prefix, "fields": fields})


def say_trouble(message: str, error: BaseException) -> None:
    """Writes a message about an error in the code; a JSON line has the traceback."""
    _SPOKEN.error("%s", message, exc_info=error)


def render(message: str, level: int, *, is_later: bool = False) -> bytes:
    """The bytes of a line that `say` would write, for callers that cannot write to sys.stderr.

    Args:
        message: one sentence or line.
        level: a level of `logging`.
        is_later: whether the line has TIME_MARK in place of its time, because another process writes it later.
    """
    record = _SPOKEN.makeRecord(_SPOKEN.name, level, "", 0, "%s", (message,), None)
    if is_later:
        record.time = TIME_MARK
    return (_HANDLER.format(record) + "\n").encode()
