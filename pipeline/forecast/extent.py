"""How many images a source holds, from the beginnings of some of its shards; and these beginnings, to be labelled.

A listing tells the size of every shard. The beginning of a shard tells how many bytes a sample takes in it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.estimate import Estimate
from pipeline.forecast.intervals import ratio
from pipeline.sources.shard import Shard
from pipeline.sources.shard_reader import Head, read_head

# Shards differ more than their images do: rather many beginnings than long ones, but not so short that opening costs
# more than reading.
_MIN_HEAD = 50
_MIN_SHARDS = 8
_N_READERS = 16


@dataclass(frozen=True, slots=True)
class Extent:
    """What a source holds, as far as its listing and some beginnings tell."""

    n_shards: int
    """Number of shards of the source."""
    n_bytes: int
    """Bytes of all shards. Where a listing has no sizes, each shard counts as the mean of those that were opened."""
    n_images: Estimate
    """Number of images of the source."""
    heads: list[Head]
    """The beginnings of the shards that were opened."""

    @property
    def n_sampled(self) -> int:
        """Number of samples in all beginnings."""
        return sum(head.n_samples for head in self.heads)

    @property
    def is_whole(self) -> bool:
        """Whether the beginnings are the whole source."""
        return _are_whole(self.heads, self.n_shards)


def measure_extent(shards: Sequence[Shard], n_images: int, seed: int) -> Extent:
    """Looks into shards drawn at random.

    Args:
        n_images: how many samples the beginnings have together, at least; fewer where the source has no more.

    Raises StorageError where a shard cannot be read.
    """
    n_drawn = min(len(shards), max(_MIN_SHARDS, n_images // _MIN_HEAD))
    drawn = sorted(random.Random(seed).sample(list(shards), n_drawn), key=lambda shard: shard.name)
    n_each = -(-n_images // n_drawn)
    with ThreadPoolExecutor(_N_READERS) as pool:
        heads = list(pool.map(lambda shard: read_head(shard, n_each), drawn))
    return estimate_extent(shards, heads)


def estimate_extent(shards: Sequence[Shard], heads: list[Head]) -> Extent:
    """The number of images, from the bytes of all shards and the samples a byte of the beginnings."""
    listed = [shard.n_listed_samples for shard in shards if shard.n_listed_samples is not None]
    if len(listed) == len(shards):
        n_listed = sum(listed)
        n_bytes = sum(shard.size or 0 for shard in shards)
        return Extent(len(shards), n_bytes, Estimate(n_listed, n_listed, n_listed), heads)
    sizes = [shard.size for shard in shards if shard.size is not None]
    n_known = len(sizes) == len(shards)
    n_bytes = sum(sizes) if n_known else round(sum(head.shard_bytes for head in heads) / len(heads) * len(shards))
    samples, bytes_read = [head.n_samples for head in heads], [head.n_bytes for head in heads]
    # Even where every shard was looked into, what lies behind its beginning was not.
    a_byte = ratio(samples, bytes_read, share_seen=1.0 if _are_whole(heads, len(shards)) else sum(bytes_read) / n_bytes)
    return Extent(len(shards), n_bytes, a_byte.times(n_bytes), heads)


def _are_whole(heads: list[Head], n_shards: int) -> bool:
    return len(heads) == n_shards and all(head.n_bytes >= head.shard_bytes for head in heads)
