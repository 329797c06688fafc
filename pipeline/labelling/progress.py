"""The progress of a running job, which the command draws."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from pipeline.dataflow.decode_place import Choice

COMPARING = "comparing the source with the run"
READING_KNOWN = "reading what is labelled already"
STARTING_RAY = "starting Ray"
# Workers import torch, which takes seconds, before they read the model.
STARTING_WORKERS = "starting workers and loading the model"
# Without workers it is the job itself that imports torch.
LOADING_MODEL = "loading the model"
FINDING_BATCH_SIZE = "finding how many images a GPU labels best at once"
LABELLING = "labelling"
# Results come in bursts: over less time a rate says nothing.
_MIN_RATE_S = 2.0


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """A job at one moment."""

    phase: str
    """What the job does, such as `starting Ray`."""
    n_shards: int
    """Number of shards to label."""
    n_shards_done: int
    """Number of shards that are committed, or left as they were."""
    n_images: int
    """Number of images that came back from the pool, rejected ones included."""
    n_rejected: int
    """Number of images that came back rejected."""
    images_per_s: float
    """Images a second since the first result; 0 until that is two seconds ago."""
    eta_s: float | None
    """Seconds to the job's end; None until a shard is committed."""
    phase_s: float = 0.0
    """Seconds since the phase began."""
    n_reused: int = 0
    """Number of images that came back to get the labels of images of the same content."""
    n_near_duplicates: int = 0
    """Number of images that came back to get the labels of images that look alike."""


@dataclass(slots=True)
class Progress:
    """Counters that the job's threads add to and the live line reads."""

    phase: str = "starting"
    n_shards: int = 0
    n_shards_done: int = 0
    n_images: int = 0
    n_rejected: int = 0
    n_reused: int = 0
    n_near_duplicates: int = 0
    batch_size: int | None = None
    """Images that are labelled at once, where a search has found it."""
    decoding: Choice | None = None
    """Where images are decoded; None until some are."""
    _n_images_of_shards: int = 0
    _n_first: int = 0
    _started: float | None = None
    _last: float | None = None
    _phase_began: float = field(default_factory=time.perf_counter)
    _seconds: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, phase: str, n_shards: int | None = None) -> None:
        with self.lock:
            self._enter(phase)
            self.n_shards = self.n_shards if n_shards is None else n_shards

    def add_rows(self, n_rows: int, n_rejected: int, n_reused: int = 0, n_near_duplicates: int = 0) -> None:
        """Counts images that came back from the labelling pool."""
        with self.lock:
            self._last = time.perf_counter()
            if self._started is None:
                self._started, self._n_first = self._last, n_rows
            self._enter(LABELLING)
            self.n_images += n_rows
            self.n_rejected += n_rejected
            self.n_reused += n_reused
            self.n_near_duplicates += n_near_duplicates

    def add_shard(self, n_images: int) -> None:
        """Counts a committed shard."""
        with self.lock:
            self.n_shards_done += 1
            self._n_images_of_shards += n_images

    def seconds_of(self, phase: str) -> float:
        """Seconds that a phase has taken so far; 0 for one that has not begun."""
        with self.lock:
            return self._seconds.get(phase, 0.0) + (self._phase_s() if phase == self.phase else 0.0)

    def _phase_s(self) -> float:
        return time.perf_counter() - self._phase_began

    def _enter(self, phase: str) -> None:
        if phase != self.phase:
            self._seconds[self.phase] = self._seconds.get(self.phase, 0.0) + self._phase_s()
            self.phase, self._phase_began = phase, time.perf_counter()

    @property
    def labelling_s(self) -> float:
        """Seconds from the first to the last result."""
        return (self._last - self._started) if self._started is not None and self._last is not None else 0.0

    @property
    def images_per_s(self) -> float:
        """Images a second from the first result to the last; the first are left out, since their work came before.

        0 where that is less than two seconds, which tell nothing.
        """
        return (self.n_images - self._n_first) / self.labelling_s if self.labelling_s >= _MIN_RATE_S else 0.0

    def snapshot(self) -> ProgressSnapshot:
        with self.lock:
            rate = self.images_per_s
            return ProgressSnapshot(
                self.phase,
                self.n_shards,
                self.n_shards_done,
                self.n_images,
                self.n_rejected,
                rate,
                self._eta_s(rate),
                self._phase_s(),
                self.n_reused,
                self.n_near_duplicates,
            )

    def _eta_s(self, images_per_s: float) -> float | None:
        """Remaining seconds, taking the shards to come for as large as those that are done."""
        if not self.n_shards_done or not images_per_s:
            return None
        n_expected = self._n_images_of_shards / self.n_shards_done * self.n_shards
        return max(0.0, n_expected - self.n_images) / images_per_s
