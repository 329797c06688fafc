"""Reads shards with Ray Data: one read task a shard or a group of tiny ones, one row a batch.

A row is a whole batch of samples of one shard, cut at fixed places. Ray may then move, merge and split blocks as it
likes: the images that are labelled together never change, so neither do the labels when a job is repeated or resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
        groups: the shards that each task reads, one after the other; by default one.
    """

    def __init__(
        self,
        shards: list[Shard],
        batch_size: int,
        max_sample_bytes: int = MAX_SAMPLE_BYTES,
        read: Read = read_batches,
        groups: Sequence[Sequence[Shard]] | None = None,
    ) -> None:
        super().__init__()
        self._read = read
        self._shards = shards
        self._groups = groups if groups is not None else [[shard] for shard in shards]
        self._batch_size = batch_size
        self._max_sample_bytes = max_sample_bytes

    def get_name(self) -> str:
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(shard.size or 0 for shard in self._shards) or None

    def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
        return [_read_task(self._read, group, self._batch_size, self._max_sample_bytes) for group in self._groups]


def group_shards(shards: Sequence[Shard], max_bytes: int, most: int) -> list[list[Shard]]:
    """Neighbouring shards that one task reads: what a task costs is then shared by all that fit into a block or so.

    Args:
        max_bytes: of a group of several; a shard of unknown size stands alone.
        most: shards of a group.
    """
    groups: list[list[Shard]] = []
    room = 0
    for shard in shards:
        n_bytes = max_bytes if shard.size is None else shard.size
        if not groups or n_bytes > room or len(groups[-1]) >= most:
            groups.append([])
            room = max_bytes
        groups[-1].append(shard)
        room -= n_bytes
    return groups


def _read_task(read: Read, group: Sequence[Shard], batch_size: int, max_sample_bytes: int) -> ReadTask:
    sizes = [shard.size for shard in group if shard.size is not None]
    metadata = BlockMetadata(
        num_rows=None, size_bytes=sum(sizes) or None, input_files=[shard.url for shard in group], exec_stats=None
    )

    def read_all() -> Iterator[pa.Table]:
        for shard in group:
            yield from read(shard, batch_size, max_sample_bytes)

    return ReadTask(read_all, metadata)
