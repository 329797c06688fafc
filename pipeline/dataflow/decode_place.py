"""Where images are decoded: in the labelling actors, or in the tasks that read shards. Labels do not depend on it.

Actors decode on the few CPUs beside their device. Read tasks decode on every CPU that no actor reserves, of any node,
and hand views on, which are smaller than photographs and larger than thumbnails.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.actor.rows import FAILED_SHARD
from pipeline.cluster.pool import PoolPlan
from pipeline.settings.labelling import DECODE_PLACES, DecodePlace

# An actor's CPUs do more than decode. With fewer to spare than this its device waits.
ROOM = 1.2
_LATEST_RESULTS = 200
# Of each actor; of fewer its first, slow ones would be too large a part.
_FEWEST_RESULTS = 5
# Of each actor, before there are so many results.
_FIRST_SHARDS = 16
_SUMMED = ("read_s", "decode_s", "n_bytes", "view_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeCpus:
    """The CPUs of a cluster that may decode."""

    n_actors: int
    """Number of labelling actors."""
    of_actor: int
    """CPUs that each actor decodes with."""
    n_free: int
    """CPUs that no actor reserves, of all nodes."""
    n_elsewhere: int
    """How many of these are on nodes without actors."""

    @classmethod
    def of(cls, pool: PoolPlan) -> DecodeCpus:
        return cls(
            n_actors=pool.n_actors,
            of_actor=pool.n_threads,
            n_free=pool.free.n_all,
            n_elsewhere=pool.free.n_elsewhere,
        )

    @property
    def n_first_shards(self) -> int:
        """How many shards a job reads at first, to learn what its images take."""
        return _FIRST_SHARDS * self.n_actors

    @property
    def are_more_free(self) -> bool:
        """Whether read tasks can decode more than the actors can, whatever the images."""
        return ROOM * self.n_free > self.n_actors * self.of_actor


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageWork:
    """What an image takes, on average."""

    read_s: float
    """Seconds of a read task, decoding not included."""
    decode_s: float
    """Seconds of a CPU."""
    label_s: float
    """Seconds of an actor's device."""
    n_bytes: float
    """Bytes as it is encoded."""
    view_bytes: float
    """Bytes of what the recognizer sees of it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a job decodes, and why."""

    place: DecodePlace
    reason: str
    """Half a sentence; empty where the settings say so."""


def actor_rate(work: ImageWork, cpus: DecodeCpus) -> float:
    """Images a second that actors label and decode themselves, at most."""
    return cpus.n_actors / max(work.label_s, ROOM * work.decode_s / cpus.of_actor)


def read_rate(work: ImageWork, cpus: DecodeCpus) -> float:
    """Images a second that actors label and read tasks decode, at most."""
    return min(cpus.n_actors / work.label_s, cpus.n_free / (work.read_s + work.decode_s))


def choose_place(work: ImageWork, cpus: DecodeCpus) -> Choice:
    """The place in which this work is done sooner; the actors where that makes no difference."""
    labels = cpus.n_actors / work.label_s
    in_actors, in_read_tasks = actor_rate(work, cpus), read_rate(work, cpus)
    of_actors = f"the actors' CPUs decode {cpus.n_actors * cpus.of_actor / work.decode_s:,.0f} images/s"
    if in_actors >= labels:
        return Choice("actor", f"{of_actors}, their devices label {labels:,.0f}")
    others = f"{cpus.n_free} free CPUs read and decode {cpus.n_free / (work.read_s + work.decode_s):,.0f} images/s"
    if in_read_tasks <= in_actors:
        return Choice("actor", f"{of_actors}, the {others}")
    if work.view_bytes > work.n_bytes and not cpus.n_elsewhere:
        return Choice("actor", "a decoded image is larger than its file, and no other node has free CPUs")
    return Choice("read", f"the {others}, {of_actors}")


def first_place(cpus: DecodeCpus, has_small_views: bool) -> Choice:
    """The place to begin in, as long as nothing is known of the images.

    Decoding that is cheap costs little in read tasks, but decoding that is dear makes devices wait in actors.

    Args:
        has_small_views: whether a recognizer sees squares of some hundred pixels, and not whole pictures.
    """
    of_actors = f"the actors have {cpus.n_actors * cpus.of_actor} CPUs to decode with"
    if cpus.are_more_free and has_small_views:
        return Choice("read", f"{cpus.n_free} CPUs are free, {of_actors}")
    if cpus.are_more_free:
        return Choice("actor", "the model takes whole pictures, which are larger than their files")
    return Choice("actor", f"{of_actors}, and {cpus.n_free} CPUs are free")


class PlaceOfDecoding:
    """Where a job decodes, chosen for each wave of shards from what was labelled before.

    Args:
        decode_in: actor, read or auto.
        has_small_views: as of `first_place`.
    """

    def __init__(self, decode_in: str, pool: PoolPlan, has_small_views: bool) -> None:
        self._cpus = DecodeCpus.of(pool)
        self._chosen = first_place(self._cpus, has_small_views)
        # Where actors have more CPUs, nothing that could be measured speaks for read tasks.
        self._is_fixed = not self._cpus.are_more_free
        if decode_in in DECODE_PLACES:
            self._chosen, self._is_fixed = Choice(cast(DecodePlace, decode_in), ""), True
        if pool.in_process:
            self._chosen, self._is_fixed = Choice("actor", "the job labels in its own process"), True
        self._is_measured = False
        self._sums = dict.fromkeys(_SUMMED, 0.0)
        self._n_images = 0
        self._label_s: deque[float] = deque(maxlen=_LATEST_RESULTS)
        # A wave is chosen for in the thread that reads, while rows of the former arrive.
        self._lock = threading.Lock()

    def most_shards(self) -> int:
        """How many shards the next wave has, at most: few as long as nothing is known of the images."""
        return sys.maxsize if self._is_fixed or self._is_measured else self._cpus.n_first_shards

    def choose(self) -> Choice:
        """Where the next wave is decoded."""
        if self._is_fixed:
            return self._chosen
        with self._lock:
            work = self._work()
            if work is not None:
                self._chosen, self._is_measured = choose_place(work, self._cpus), True
                self._sums, self._n_images = dict.fromkeys(_SUMMED, 0.0), 0
                self._label_s.clear()
        return self._chosen

    def watch(self, arriving: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Tables of `LABELLED_ROWS` as they are, with a look at what they took."""
        for rows in arriving:
            n_images = pc.sum(pc.not_equal(rows.column("index"), FAILED_SHARD)).as_py()
            if n_images:
                with self._lock:
                    self._count(rows, n_images)
            yield rows

    def _count(self, rows: pa.Table, n_images: int) -> None:
        self._n_images += n_images
        for name in _SUMMED:
            self._sums[name] += pc.sum(rows.column(name)).as_py() or 0
        self._label_s.append((pc.sum(rows.column("infer_s")).as_py() or 0) / n_images)

    def _work(self) -> ImageWork | None:
        """What an image took; None as long as there are few results, or none with an image."""
        if len(self._label_s) < _FEWEST_RESULTS * self._cpus.n_actors or not self._sums["decode_s"]:
            return None
        of_image = {name: total / self._n_images for name, total in self._sums.items()}
        # Each actor's model does much only once: the median leaves it out.
        return ImageWork(label_s=max(median(self._label_s), 1e-9), **of_image)
