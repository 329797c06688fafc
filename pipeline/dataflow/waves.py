"""Waves of shards, and what labels them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

import pyarrow as pa

from pipeline.actor.rows import LABELLED_ROWS
from pipeline.reuse.known_images import KnownImages
from pipeline.settings.labelling import DecodePlace
from pipeline.sources.shard import Shard

# Two calls of a labeler at a time: while one holds the device the other decodes. As many wait, so that none waits for
# the reading.
CALLS_AT_ONCE = 2
MAX_IN_FLIGHT = 2 * CALLS_AT_ONCE
_SLACK, _SLACK_S = 2, 2
QUIET_S = 1.0
NOTHING_YET = LABELLED_ROWS.empty_table()


def standstill_s(no_progress_timeout_s: float) -> float:
    """How long nothing may happen before a job is stopped. A labeler that is stuck says so itself, and comes first."""
    return _SLACK * no_progress_timeout_s + _SLACK_S


class Wave(NamedTuple):
    """Shards that are read together."""

    shards: list[Shard]
    decode_in: DecodePlace = "actor"
    """Where their images are decoded, which makes no difference to the rows; in this process it is there."""
    known: KnownImages | None = None
    """Images whose labels theirs may get, where labels are reused."""


Stream = Callable[[Iterable[Wave]], Generator[pa.Table, None, None]]
"""Reads and labels shards; yields tables of `pipeline.actor.rows.LABELLED_ROWS` in no particular order. The next
wave is asked for, perhaps in another thread, while the former is labelled: models and devices never wait for it. Asking
may take until rows of former waves were taken. Where no rows come for `QUIET_S` seconds, `NOTHING_YET` does, a table
without rows: a batch may take minutes, and whoever takes the rows looks at the time, and at what else has failed."""
