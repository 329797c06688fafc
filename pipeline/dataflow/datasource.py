"""Reads shards with Ray Data: one read task a shard, one row a batch.

A row is a whole batch of samples of one shard, cut at fixed places. Ray may then move, merge and split blocks as it
likes: the images that are labelled together never change, so neither do the labels when a job is repeated or resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.batches import read_batches
from pipeline.sources.shard import Shard

Read = Callable[[Shard, int, int], Iterator[pa.Table]]


class ShardDatasource(Datasource):
    """Streams the samples of shards as rows of `BATCHES`; larger images than `max_sample_bytes` are rejected.

    Args:
        read: reads a shard; by default a storage that fails ends the work, with `read_batches_or_failure` it costs the
            shard alone.
    """

    def __init__(
        self,
        shards: list[Shard],
        batch_size: int,
        max_sample_bytes: int = MAX_SAMPLE_BYTES,
        read: Read = read_batches,
    ) -> None:
        super().__init__()
        self._read = read
        self._shards = shards
        self._batch_size = batch_size
        self._max_sample_bytes = max_sample_bytes

    def get_name(self) -> str:
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(shard.size or 0 for shard in self._shards) or None

    def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
        return [_read_task(self._read, shard, self._batch_size, self._max_sample_bytes) for shard in self._shards]


def _read_task(read: Read, shard: Shard, batch_size: int, max_sample_bytes: int) -> ReadTask:
    metadata = BlockMetadata(num_rows=None, size_bytes=shard.size, input_files=[shard.url], exec_stats=None)
    return ReadTask(lambda: read(shard, batch_size, max_sample_bytes), metadata)
