"""What commands tell on stderr: plain lines, or with `--log-format json` one object a line.

Every line of the latter has time, level and message; run and job, as soon as they are known; shard and counters, where
it is about them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from pipeline.text import conceal

# In the place of the time in a line that another process writes later.
TIME_MARK = "@TIME@"
_SPOKEN = logging.getLogger("jobs")
_PIPELINE = logging.getLogger("pipeline")


class _Lines(logging.Formatter):
    """Messages as they are."""

    def format(self, record: logging.LogRecord) -> str:
        return getattr(record, "prefix", "") + conceal(record.getMessage())


class _JsonLines(logging.Formatter):
    """One JSON object a record."""

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
    """stderr as it is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


_HANDLER = _Stderr()
_HANDLER.setFormatter(_Lines())
_SPOKEN.addHandler(_HANDLER)
_SPOKEN.setLevel(logging.INFO)
_SPOKEN.propagate = False


def start_log(log_format: str) -> None:
    """Chooses how everything is told from here on: text or json.

    As json also what libraries warn of, and what the pipeline tells of each shard.
    """
    as_json = log_format == "json"
    _HANDLER.setFormatter(_JsonLines() if as_json else _Lines())
    _PIPELINE.setLevel(logging.INFO if as_json else logging.NOTSET)
    logging.captureWarnings(as_json)
    root = logging.getLogger()
    (root.addHandler if as_json else root.removeHandler)(_HANDLER)


def is_json() -> bool:
    return isinstance(_HANDLER.formatter, _JsonLines)


def identify_by(identify: Callable[[], dict[str, str]]) -> None:
    """Adds what this returns to every following line that is json."""
    if isinstance(_HANDLER.formatter, _JsonLines):
        _HANDLER.formatter.identify = identify


def say(message: str, *, level: int = logging.INFO, prefix: str = "", **fields: Any) -> None:
    """Tells something.

    Args:
        prefix: of the plain line, where the level is told otherwise in json.
        fields: further values of the json object.
    """
    _SPOKEN.log(level, "%s", message, extra={"prefix": prefix, "fields": fields})


def say_trouble(message: str, error: BaseException) -> None:
    """Tells of an error in the code, with its traceback."""
    _SPOKEN.error("%s", message, exc_info=error)


def render(message: str, level: int, *, is_later: bool = False) -> bytes:
    """A line as `say` writes it, for those who cannot go through sys.stderr.

    Args:
        is_later: put TIME_MARK where the time goes.
    """
    record = _SPOKEN.makeRecord(_SPOKEN.name, level, "", 0, "%s", (message,), None)
    if is_later:
        record.time = TIME_MARK
    return (_HANDLER.format(record) + "\n").encode()
