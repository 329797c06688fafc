"""A clock for limits of time."""

from __future__ import annotations

import time

import pytest

from pipeline.actor import decoding, device_thread


class Clock:
    """Stands in for the module `time`: its time to limit work by goes on only where a test says so."""

    perf_counter = staticmethod(time.perf_counter)
    thread_time = staticmethod(time.thread_time)

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """By it decoding and the device's work take too long or not, however busy the machine."""
    clock = Clock()
    for module in (decoding, device_thread):
        monkeypatch.setattr(module, "time", clock)
    return clock
