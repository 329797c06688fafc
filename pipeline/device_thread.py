"""The one thread that does all of a model's work."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

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

    def run(self, limit_s: float | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the work returns.

        Args:
            limit_s: how long it may take once it is its turn; None is for ever.

        Raises DeviceStuckError where it takes longer. The thread cannot be stopped: the process is of no more use.
        """
        future = self._executor.submit(work, *args, **kwargs)
        if limit_s is not None:
            _wait(future, limit_s)
        return future.result()


def _wait(future: Future[T], limit_s: float) -> None:
    began: float | None = None
    while not wait([future], min(_LOOK_EVERY_S, limit_s)).done:
        if began is None and future.running():
            began = time.monotonic()
        if began is not None and time.monotonic() - began >= limit_s:
            raise DeviceStuckError
