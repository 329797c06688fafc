"""Whose labels the shards of a run may reuse: written down before any of them is labelled, so that jobs decide alike.

The files `runs/<run>/reuse/<n>.parquet`, one after the other, are rows of `schemas.REUSE_ORDER`. The first image of a
content in this order is the one that is labelled, and a shard looks at the shards that come long enough before it. A
part is added when a source has shards that no part names. It begins with what other runs have committed by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from pipeline.storage.files import storage_errors, write_whole
from pipeline.store.ownership import SUFFIX, shard_stem
from pipeline.store.parquet_file import describe_file, encode_file, read_file
from pipeline.store.run import Run
from schemas import REUSE_ORDER


class Place(NamedTuple):
    """A shard of a run, perhaps of another store."""

    store: str | None
    """Absolute path or URL; None for the run's own store."""
    run: str
    stem: str
    """How its files begin."""


@dataclass(slots=True)
class ReuseOrder:
    """The order of a run's parts together. A shard's number is its position."""

    run: str
    places: list[Place] = field(default_factory=list)
    n_seen: dict[int, int] = field(default_factory=dict)
    """By the number of a shard that the run labels: labels of so many of the first shards it may reuse."""
    numbers: dict[Place, int] = field(default_factory=dict)
    n_parts: int = 0

    @classmethod
    def read(cls, run: Run) -> ReuseOrder:
        """The order as it stands. Raises StoreError where a part is damaged."""
        order = cls(run.name)
        for name in sorted(run.list_files(run.layout.reuse)):
            rows, _ = read_file(run.filesystem, f"{run.layout.reuse}/{name}")
            order._append(rows.select(REUSE_ORDER.names))
            order.n_parts = int(name.removesuffix(SUFFIX)) + 1
        return order

    def number_of(self, shard: str) -> int:
        """The number of a shard of the run. Raises KeyError where no part names it."""
        return self.numbers[Place(None, self.run, shard_stem(shard))]

    def names(self, shard: str) -> bool:
        """Whether a part says what a shard of the run may reuse."""
        return self.numbers.get(Place(None, self.run, shard_stem(shard))) in self.n_seen

    def next_part(
        self, others: Iterable[Place], committed: Iterable[str], shards: Sequence[str], n_before: Sequence[int]
    ) -> pa.Table:
        """Rows of `REUSE_ORDER` for shards that the parts do not name yet.

        Args:
            others: shards of other runs, whose labels may be reused.
            committed: stems of the shards of this run that are labelled already.
            shards: names of those that are to be labelled, in the order of their labelling.
            n_before: at how many of the first of `shards` each of them looks, beside all that come before these.
        """
        own = [Place(None, self.run, stem) for stem in sorted(committed)]
        first = [place for place in (*dict.fromkeys(others), *own) if place not in self.numbers]
        begin = len(self.places) + len(first)
        rows = [*first, *(Place(None, self.run, shard_stem(shard)) for shard in shards)]
        columns = [pa.array([place[at] for place in rows], pa.string()) for at in range(3)]
        seen = pa.array([*[None] * len(first), *(begin + before for before in n_before)], pa.int64())
        return pa.Table.from_arrays([*columns, seen], schema=REUSE_ORDER)

    def write_part(self, run: Run, rows: pa.Table) -> bool:
        """Adds a part, unless another job has added one meanwhile; returns whether it did."""
        content = encode_file(rows, describe_file({"run": run.name}))
        with storage_errors(f"write to the store {run.store_url}"):
            return write_whole(run.filesystem, run.layout.reuse_part(self.n_parts), content, if_absent=True)

    def _append(self, rows: pa.Table) -> None:
        columns = (rows[name].to_pylist() for name in REUSE_ORDER.names)
        for store, run, stem, n_seen in zip(*columns, strict=True):
            place, number = Place(store, run, stem), len(self.places)
            self.places.append(place)
            self.numbers[place] = number
            if n_seen is not None:
                self.n_seen[number] = n_seen
