"""The store: where a run's files lie, and who owns a shard."""

from pipeline.store.store import Store

__all__ = ["Store"]
