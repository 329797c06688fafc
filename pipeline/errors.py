"""Errors that stop a job. Each message is one clear sentence: what was got, what was expected, what to do."""


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
