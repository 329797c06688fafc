"""The process that measures tells what happens."""

from __future__ import annotations

from tests.benchmarks.budgeted.events import Event, read_line
from tests.benchmarks.budgeted.work import print_event, run_measures


def test_a_measure_that_fails_keeps_its_rows_and_does_not_stop_the_next():
    def breaks():
        yield ("first row",)
        raise RuntimeError("no kernel")

    told: list[Event] = []
    run_measures(["breaks", "works"], {"works": lambda: [("a", "1")], "breaks": breaks}, told.append)
    assert told == [
        Event("begin", "breaks"),
        Event("row", "breaks", ("first row",)),
        Event("failed", "breaks", text="RuntimeError: no kernel"),
        Event("begin", "works"),
        Event("row", "works", ("a", "1")),
        Event("end", "works"),
    ]


def test_an_event_has_a_line_of_its_own_behind_a_progress_bar(capsys):
    print("50 %", end="")
    print_event(Event("end", "a"))
    lines = capsys.readouterr().out.splitlines()
    assert [read_line(line) for line in lines] == [None, Event("end", "a")]
