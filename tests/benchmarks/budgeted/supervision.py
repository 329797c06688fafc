"""Measures that run in a process of their own, each within a limit and all within a budget.

A measure that hangs, crashes or breaks the accelerator's context costs its own row. The others go on in a new process.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.budgeted.events import Event, read_line

# Of what a process printed before it died.
_LINES_KEPT = 4


@dataclass(frozen=True, slots=True)
class Measure:
    """Something to measure: its name, and the seconds that it may take."""

    name: str
    limit_s: float


class Worker(Protocol):
    """A process that measures what it was given, in that order."""

    def next_event(self, timeout_s: float) -> Event | None:
        """What happens next, or None where nothing does in time."""

    def stop(self) -> None:
        """Ends it at once, with all processes that it started."""


def supervise(
    measures: Sequence[Measure],
    start: Callable[[Sequence[Measure]], Worker],
    budget: Budget,
    tell: Callable[[Event], None],
    start_limit_s: float = 120,
) -> None:
    """Measures one after another, and tells what happens to each. Every measure ends or fails.

    Args:
        start: starts a process for these measures.
        start_limit_s: the longest that a process may take before its first measure begins.
    """
    left = list(measures)
    while left and budget.left_s() > 0:
        worker = start(left)
        try:
            done = _follow(worker, left, budget, tell, start_limit_s)
        finally:
            worker.stop()
        left = left[done:]
    for measure in left:
        tell(Event("failed", measure.name, text="out of time"))


def _follow(
    worker: Worker, measures: Sequence[Measure], budget: Budget, tell: Callable[[Event], None], start_limit_s: float
) -> int:
    """How many of the measures are over when nothing more is to be had of this process."""
    for index, measure in enumerate(measures):
        # The first has to wait for the process, the others begin when the one before ends.
        begins = budget.share(start_limit_s if index == 0 else measure.limit_s)
        event = _wait(worker, begins, tell)
        if event is not None and event.kind == "begin":
            limit = budget.share(measure.limit_s)
            limit_s = limit.left_s()
            while (event := _wait(worker, limit, tell)) is not None and event.kind == "row":
                tell(event)
        else:
            limit_s = start_limit_s
        if event is not None and event.kind in ("end", "failed"):
            tell(event)
            continue
        died = event is not None and event.kind == "died"
        text = event.text if event is not None and died else f"stopped after {limit_s:.0f} s"
        tell(Event("failed", measure.name, text=text))
        return index + 1
    return len(measures)


def _wait(worker: Worker, limit: Budget, tell: Callable[[Event], None]) -> Event | None:
    while (event := worker.next_event(limit.left_s())) is not None and event.kind == "text":
        tell(event)
    return event


class ProcessWorker:
    """A worker that is a process of this command. What it prints besides events goes to stderr."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=environment,
        )
        self._events: queue.Queue[Event] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def next_event(self, timeout_s: float) -> Event | None:
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def stop(self) -> None:
        # Compilers run in processes of their own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        printed: deque[str] = deque(maxlen=_LINES_KEPT)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = read_line(line)
            if event is not None:
                self._events.put(event)
            else:
                printed.append(line.strip())
                sys.stderr.write(line)
        ended = f"the process ended with {self._process.wait()}"
        self._events.put(Event("died", text=": ".join([ended, " / ".join(printed)]) if printed else ended))
