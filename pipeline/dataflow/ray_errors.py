"""Errors that come out of Ray, as the one sentence a user should see."""

from __future__ import annotations

from ray.exceptions import RayError

from pipeline.errors import (
    ClusterError,
    ModelError,
    SourceError,
    StorageError,
    TagstreamError,
    worker_failed,
)

_ADVICE = ("Failed to apply UDF transform after ", "To change retry attempts, backoff, ")


def as_sentence(error: BaseException) -> TagstreamError:
    """The error of one sentence that a user should see in place of one that came out of Ray."""
    cause: BaseException | None = error
    while isinstance(cause, BaseException):
        # Ray makes errors that are of the worker's class, too, and say its traceback.
        if isinstance(cause, TagstreamError) and not isinstance(cause, RayError):
            return type(cause)(_lines(cause)[0])
        cause = getattr(cause, "cause", None) or cause.__cause__
    lines = _lines(error)
    for line in reversed(lines):
        for kind in (ModelError, SourceError, ClusterError, StorageError):
            if f"{kind.__name__}: " in line:
                return kind(line.split(f"{kind.__name__}: ", 1)[1])
    return worker_failed(lines[-1])


def _lines(error: BaseException) -> list[str]:
    """The lines of an error's text, without what Ray Data puts below it about settings of its own."""
    lines = [line.strip() for line in str(error).splitlines()]
    return [line for line in lines if line and not line.startswith(_ADVICE)] or [type(error).__name__]
