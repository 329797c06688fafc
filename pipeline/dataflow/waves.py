"""Waves of shards, and what labels them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

import pyarrow as pa

from pipeline.settings.labelling import DecodePlace
from pipeline.sources.shard import Shard


class Wave(NamedTuple):
    """Shards that are read together."""

    shards: list[Shard]
    decode_in: DecodePlace = "actor"
    """Where their images are decoded, which makes no difference to the rows; in this process it is there."""


Stream = Callable[[Iterable[Wave]], Generator[pa.Table, None, None]]
"""Reads and labels shards; yields tables of `pipeline.dataflow.rows.LABELLED_ROWS` in no particular order. The next
wave is asked for, perhaps in another thread, while the former is labelled: models and devices never wait for it."""
