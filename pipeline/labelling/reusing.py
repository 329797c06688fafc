"""A job whose images get the labels of images of the same content, where there are any."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import pyarrow.compute as pc

from pipeline.cluster.pool import PoolPlan
from pipeline.errors import StoreError, TagstreamError
from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.assignment import OpenJob
from pipeline.reuse.copying import copy_labels
from pipeline.reuse.known_images import ImageIndex, KnownImages
from pipeline.reuse.order import ReuseOrder
from pipeline.reuse.stored_images import StoredImages, find_others
from pipeline.sources.shard import Shard
from pipeline.store.ownership import shard_stem
from pipeline.store.store import Store
from pipeline.text import conceal
from schemas import LABELLED

# Shards of a group on Ray, for each actor: so many, and as many more as make so many bytes.
_SHARDS_AN_ACTOR, _BYTES_AN_ACTOR = 8, 64 << 20
_TRIES = 5
Cut = Callable[[list[Shard]], Iterable[list[Shard]]]


class Reuse:
    """What a job knows of labelled images, and in which order its shards come, so that every job decides alike.

    Several threads may use it.

    Args:
        order: names each of the shards.
        shards: those that the job labels, in their order. What others have committed is read now.
    """

    def __init__(self, job: OpenJob, order: ReuseOrder, shards: Sequence[Shard]) -> None:
        self._order = order
        self._images = StoredImages(job.run, order)
        self._index = ImageIndex()
        numbers = [order.number_of(shard.name) for shard in shards]
        self._left = dict.fromkeys(numbers)
        self._changed = threading.Condition()
        self._is_closed = False
        most = max((order.n_seen[number] for number in numbers), default=0)
        # Shards that are labelled again have other images soon.
        self._images.add_to(self._index, most, without=set(numbers))

    def waves(self, shards: Sequence[Shard], cut: Cut) -> Iterator[tuple[list[Shard], KnownImages]]:
        """Waves of shards, each with what they may reuse. Waits until that is committed, or could not be labelled.

        Args:
            cut: cuts shards that look at the same ones into waves.
        """
        for n_seen, group in groupby(shards, lambda shard: self._order.n_seen[self._order.number_of(shard.name)]):
            for wave in cut(list(group)):
                known = self._wait_for(n_seen)
                if known is None:
                    return
                yield wave, known

    def fill(self, shard: WholeShard) -> WholeShard:
        """A shard that came back, with the labels that it reuses. Raises StoreError where these are gone."""
        if shard.marks is None:
            return shard
        tables = copy_labels(shard.images, shard.labels, shard.marks, self._images.read, self._images.name_run)
        return replace(shard, images=tables[0], labels=tables[1])

    def add(self, shard: WholeShard) -> None:
        """Makes the images of a committed shard known."""
        is_labelled = (pc.field("status") == LABELLED) & pc.field("content_hash").is_valid()
        images = shard.images.filter(is_labelled).combine_chunks()
        number = self._order.number_of(shard.name)
        with self._changed:
            self._index.add(images["content_hash"].combine_chunks(), number, images["index"].to_numpy())

    def end(self, shard: str, is_well: bool) -> None:
        """Says that the work on a shard is over. Where it failed nobody waits for the job's end: others must not decide
        without this shard."""
        if is_well:
            self.leave(shard)
        else:
            self.close()

    def leave(self, *shards: str) -> None:
        """Nobody waits for these shards any more: they are committed, or cannot be read."""
        with self._changed:
            for shard in shards:
                self._left.pop(self._order.number_of(shard), None)
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _wait_for(self, n_seen: int) -> KnownImages | None:
        """What so many of the first shards have, once none of them is left; None where the job ends before."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or next(iter(self._left), n_seen) >= n_seen)
            return None if self._is_closed else self._index.known(n_seen)


def check_stores(stores: Sequence[str], own: str) -> None:
    """Raises TagstreamError where a store whose labels are to be reused is not there, or is given with a login.

    Args:
        own: the store of the run that reuses them.
    """
    for url in _absolute(stores, own):
        if not Store(url).exists():
            raise StoreError(
                f"there is no store at {url}, whose labels are to be reused; correct --reuse or reuse_stores"
            )


def open_order(job: OpenJob, shards: Sequence[Shard], pool: PoolPlan, stores: Sequence[str]) -> ReuseOrder:
    """The order in which a run reuses labels, to which a part is added where it does not name all of the shards yet.

    Args:
        shards: those to label.
        stores: others whose labels the new shards may reuse, too, as `check_stores` takes them.

    Raises StoreError where the order cannot be read or written.
    """
    for _ in range(_TRIES):
        order = ReuseOrder.read(job.run)
        new = [shard for shard in shards if not order.names(shard.name)]
        if not new:
            return order
        committed = job.run.committed().by_stem.keys() - {shard_stem(shard.name) for shard in shards}
        others = find_others(job.run, job.record.fingerprint, _absolute(stores, job.run.store_url))
        rows = order.next_part(others, committed, [shard.name for shard in new], look_back(new, pool))
        order.write_part(job.run, rows)
    raise StoreError(f"other jobs go on adding shards to run {job.run.name}; run the command again")


def look_back(shards: Sequence[Shard], pool: PoolPlan) -> list[int]:
    """At how many of the first shards each looks. The nearest are under way when a shard is read, and nobody waits.

    In this process a shard is read while the one before is labelled, and looks at all but that. On Ray the shards of a
    group are read side by side while those of the group before are labelled, and look at all groups but these two.
    """
    if pool.in_process:
        return [max(0, position - 1) for position in range(len(shards))]
    looks, begin, former, room = list[int](), 0, 0, 0
    for position, shard in enumerate(shards):
        is_full = position - begin >= _SHARDS_AN_ACTOR * pool.n_actors and room <= 0
        if not position or is_full:
            former, begin, room = begin, position, _BYTES_AN_ACTOR * pool.n_actors
        looks.append(former)
        # Of web servers no sizes are known.
        room -= shard.size if shard.size is not None else _BYTES_AN_ACTOR * pool.n_actors
    return looks


def _absolute(stores: Sequence[str], own: str) -> list[str]:
    """Stores as they are understood from any working directory, without the run's own."""
    for url in stores:
        if conceal(url) != url:
            raise TagstreamError(
                f"the store {conceal(url)} is given with a login, which the run would have to keep; give the login by "
                "the environment"
            )
    paths = [url.rstrip("/") if "://" in url else os.path.abspath(url) for url in (own, *stores)]  # noqa: PTH100
    return [path for path in dict.fromkeys(paths) if path != paths[0]]
