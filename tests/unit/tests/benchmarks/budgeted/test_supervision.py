"""Measures run one after another within their limits, and what hangs or dies costs one row."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence

import pytest

from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.budgeted.events import Event
from tests.benchmarks.budgeted.supervision import Measure, ProcessWorker, supervise

START_S = 20
# For a real process to start or to end, on a laden machine too.
WAIT_S = 240
A, B, C = (Measure(name, limit_s=30) for name in "abc")


class World:
    """A clock that runs while workers work, and workers that do what a script says.

    A script has, for each measure, the events of a worker with the seconds until each.
    """

    def __init__(self, script: dict[str, list[tuple[float, Event]]], total_s: float = 1000):
        self.script, self.now = script, 0.0
        self.started: list[list[str]] = []
        self.stopped = 0
        self.told: list[Event] = []
        self.budget = Budget(total_s, lambda: self.now)

    def start(self, measures: Sequence[Measure]) -> World.Worker:
        self.started.append([measure.name for measure in measures])
        return World.Worker(self, [step for measure in measures for step in self.script[measure.name]])

    def supervise(self, *measures: Measure) -> list[Event]:
        supervise(measures, self.start, self.budget, self.told.append, START_S)
        return self.told

    class Worker:
        def __init__(self, world, steps):
            self.world, self.steps = world, steps

        def next_event(self, timeout_s):
            if not self.steps or self.steps[0][0] > timeout_s:
                self.world.now += timeout_s
                return None
            seconds, event = self.steps.pop(0)
            self.world.now += seconds
            return event

        def stop(self):
            self.world.stopped += 1


def good(name: str, seconds: float = 1) -> list[tuple[float, Event]]:
    return [(1, Event("begin", name)), (seconds, Event("row", name, (name,))), (1, Event("end", name))]


def kinds(events: Sequence[Event]) -> list[str]:
    return [f"{event.measure} {event.kind} {event.text}".strip() for event in events]


def test_measures_run_in_one_process_one_after_another():
    world = World({name: good(name) for name in "abc"})
    assert kinds(world.supervise(A, B, C)) == ["a row", "a end", "b row", "b end", "c row", "c end"]
    assert world.started == [["a", "b", "c"]]


def test_a_measure_that_takes_too_long_keeps_its_rows_and_the_others_go_on_in_a_new_process():
    world = World({"a": [*good("a")[:2], (31, Event("end", "a"))], "b": good("b"), "c": good("c")})
    expected = ["a row", "a failed stopped after 30 s", "b row", "b end", "c row", "c end"]
    assert kinds(world.supervise(A, B, C)) == expected
    assert world.started == [["a", "b", "c"], ["b", "c"]]
    assert world.stopped == 2


def test_a_measure_that_kills_its_process_fails_with_what_was_printed():
    world = World({"a": [(1, Event("begin", "a")), (1, Event("died", text="exit -11"))], "b": good("b")})
    assert kinds(world.supervise(A, B)) == ["a failed exit -11", "b row", "b end"]


def test_a_measure_that_fails_by_itself_leaves_the_process_to_the_others():
    world = World({"a": [(1, Event("begin", "a")), (1, Event("failed", "a", text="no kernel"))], "b": good("b")})
    assert kinds(world.supervise(A, B)) == ["a failed no kernel", "b row", "b end"]
    assert world.started == [["a", "b"]]


def test_a_process_that_does_not_start_costs_its_first_measure():
    world = World({"a": [(START_S + 1, Event("begin", "a"))], "b": good("b")})
    assert kinds(world.supervise(A, B)) == [f"a failed stopped after {START_S} s", "b row", "b end"]


def test_when_time_is_over_the_measure_in_hand_is_stopped_and_the_rest_is_not_begun():
    world = World({"a": good("a"), "b": good("b", seconds=25), "c": good("c")}, total_s=20)
    expected = ["a row", "a end", "b failed stopped after 16 s", "c failed out of time"]
    assert kinds(world.supervise(A, B, C)) == expected
    assert world.now == pytest.approx(20)


def test_lines_of_the_head_are_told_as_they_come():
    world = World({"a": [(1, Event("text", text="- hardware")), *good("a")]})
    assert kinds(world.supervise(A)) == ["text - hardware", "a row", "a end"]


@pytest.fixture
def start_script() -> Callable[[str], ProcessWorker]:
    """A function that runs Python lines as a worker."""
    workers = []

    def start(lines: str) -> ProcessWorker:
        head = "import os, subprocess, sys, time\nfrom tests.benchmarks.budgeted.events import Event\n"
        worker = ProcessWorker([sys.executable, "-c", head + textwrap.dedent(lines)])
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


def test_a_process_tells_its_events_and_how_it_ended(start_script):
    worker = start_script("""
        print(Event("begin", "a").to_line(), flush=True)
        print("half a", flush=True)
        print("Segmentation fault", file=sys.stderr)
        os._exit(3)
    """)
    assert worker.next_event(WAIT_S) == Event("begin", "a")
    died = worker.next_event(WAIT_S)
    assert died == Event("died", text="the process ended with 3: half a / Segmentation fault")


def test_a_process_that_is_stopped_takes_its_own_processes_along(start_script):
    worker = start_script("""
        subprocess.Popen(["sleep", "600"])
        print(Event("begin", "a").to_line(), flush=True)
        time.sleep(600)
    """)
    assert worker.next_event(WAIT_S) == Event("begin", "a")
    assert worker.next_event(0.3) is None
    worker.stop()
    # The output ends with the last process that holds it open.
    assert worker.next_event(WAIT_S) == Event("died", text="the process ended with -9")
