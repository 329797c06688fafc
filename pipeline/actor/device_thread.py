"""The one thread that does all of a model's work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import ParamSpec, TypeVar

from pipeline.background import abandon_threads

P = ParamSpec("P")
T = TypeVar("T")
_LOOK_EVERY_S = 1.0


class DeviceStuckError(Exception):
    """The device has worked on one thing for longer than the limit."""


class DeviceThread:
    """Runs the model's work in one thread, one after the other.

    On CPUs each thread that computes brings OpenMP threads of its own; where those outnumber the cores, the cores were
    seen to idle (1.4 of 2 in use, against 1.8 with one thread).
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._lock = threading.Lock()
        self._n_waiting = 0
        self._busy_s = 0.0
        self._began: float | None = None

    def run(self, limit_s: float | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the work returns.

        Args:
            limit_s: how long it may take once it is its turn; None is for ever.

        Raises DeviceStuckError where it takes longer. The thread cannot be stopped: the process is of no more use.
        """
        with self._lock:
            self._n_waiting += 1
        future = self._executor.submit(self._work, partial(work, *args, **kwargs))
        if limit_s is not None:
            _wait(future, limit_s)
        return future.result()

    @property
    def n_waiting(self) -> int:
        """How many pieces of work wait for their turn."""
        return self._n_waiting

    @property
    def busy_s(self) -> float:
        """Seconds of work so far, those of what is still at work included."""
        with self._lock:
            return self._busy_s + (0.0 if self._began is None else time.perf_counter() - self._began)

    def _work(self, work: Callable[[], T]) -> T:
        with self._lock:
            self._n_waiting -= 1
            self._began = began = time.perf_counter()
        try:
            return work()
        finally:
            with self._lock:
                self._busy_s += time.perf_counter() - began
                self._began = None


def _wait(future: Future[T], limit_s: float) -> None:
    began: float | None = None
    while not wait([future], min(_LOOK_EVERY_S, limit_s)).done:
        if began is None and future.running():
            began = time.monotonic()
        if began is not None and time.monotonic() - began >= limit_s:
            abandon_threads()
            raise DeviceStuckError
