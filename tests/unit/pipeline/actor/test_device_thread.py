"""The thread that does a model's work, and its limit."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event, get_ident
from typing import Any

import pytest

from pipeline.actor.device_thread import DeviceStuckError, DeviceThread

# More than anything takes that is not stuck, on any machine.
LONG_S = 60


def test_all_work_is_done_in_one_thread_and_its_result_returned() -> None:
    device = DeviceThread()
    threads = {device.run(None, get_ident), device.run(LONG_S, get_ident)}
    assert len(threads) == 1
    assert threads != {get_ident()}
    assert device.run(LONG_S, divmod, 7, 2) == (3, 1)


def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        DeviceThread().run(LONG_S, divmod, 1, 0)


def test_a_timeout_error_of_the_work_is_not_taken_for_a_stuck_device() -> None:
    def fail() -> None:
        raise TimeoutError("of the model's own")

    with pytest.raises(TimeoutError, match="of the model's own"):
        DeviceThread().run(LONG_S, fail)


def test_work_without_end_is_given_up_at_the_limit() -> None:
    is_over = Event()
    started = time.monotonic()
    with pytest.raises(DeviceStuckError):
        DeviceThread().run(0.2, is_over.wait)
    is_over.set()
    assert time.monotonic() - started < LONG_S


def test_waiting_for_ones_turn_does_not_count(clock: Any) -> None:
    device, began, is_over = DeviceThread(), Event(), Event()

    def work() -> bool:
        began.set()
        return is_over.wait(LONG_S)

    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(device.run, None, work)
        assert began.wait(LONG_S)
        waiting = callers.submit(device.run, 0.02, int)
        # Meanwhile it looks at the clock again and again.
        for _ in range(10):
            time.sleep(0.05)
            clock.now += LONG_S
        assert not waiting.done()
        is_over.set()
        assert (first.result(), waiting.result()) == (True, 0)


def test_work_that_is_still_going_on_counts_as_busy() -> None:
    device, began, is_over = DeviceThread(), Event(), Event()

    def work() -> None:
        began.set()
        is_over.wait()

    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(device.run, None, work)
        began.wait()
        waiting = callers.submit(device.run, None, int)
        deadline = time.monotonic() + LONG_S
        while device.n_waiting < 1:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.05)
        assert device.busy_s >= 0.05
        is_over.set()
        wait([first, waiting])
    after = device.busy_s
    time.sleep(0.05)
    assert (device.busy_s, device.n_waiting) == (after, 0)
