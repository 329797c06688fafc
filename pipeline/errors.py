"""Errors that stop a job. Each message is one clear sentence: what was got, what was expected, what to do."""

from __future__ import annotations


class TagstreamError(Exception):
    """Bad configuration, bad surroundings or bad code; never bad data, which becomes a rejected row."""


class SourceError(TagstreamError):
    """The source cannot be found, listed or understood."""


class StoreError(TagstreamError):
    """The store cannot be read or written, or holds another run under this name."""


class StorageError(StoreError):
    """A storage failed, that of the source or of the store; it may be back when the command is run again."""


class RunLockedError(StoreError):
    """Another job holds the lock of the run, and this one was asked to leave then."""


class ModelError(TagstreamError):
    """The model cannot be found or loaded."""


class ClusterError(TagstreamError):
    """Ray cannot run this job with the resources it has."""


def worker_failed(last_line: str) -> TagstreamError:
    """The error for whatever a worker raised that is none of these.

    Args:
        last_line: of its traceback.
    """
    return TagstreamError(f"a worker failed: {last_line}; run with --verbose for its whole story")


def stood_still(unfinished: str, timeout_s: int) -> ClusterError:
    """The error where nothing moves.

    Args:
        unfinished: the work that does not end.
        timeout_s: the setting `no_progress_timeout_s`.
    """
    return ClusterError(
        f"no worker has finished anything for longer than the {timeout_s} s of no_progress_timeout_s; unfinished: "
        f"{unfinished}; "
        "perhaps other jobs hold the CPUs or GPUs, a node is lost, or a file system does not answer"
    )
