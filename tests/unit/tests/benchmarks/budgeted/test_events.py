"""Events travel as lines."""

from __future__ import annotations

import pytest

from tests.benchmarks.budgeted.events import Event, read_line


@pytest.mark.parametrize(
    "event", [Event("begin", "a"), Event("row", "a", ("1", "2 %")), Event("failed", "a", text="two\nlines | bar")]
)
def test_an_event_is_read_back_from_its_line(event):
    line = event.to_line()
    assert "\n" not in line
    assert read_line(line + "\n") == event


def test_other_output_is_no_event():
    assert read_line("Loading weights: 100 %\n") is None
