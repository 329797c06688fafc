"""The side of the process that measures: runs measures in turn and tells what happens to each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from tests.benchmarks.budgeted.events import Event

Rows = Callable[[], Iterable[Sequence[str]]]


def run_measures(names: Sequence[str], rows_of: Mapping[str, Rows], tell: Callable[[Event], None]) -> None:
    """Runs these measures. What one of them raises is told, and the next one begins."""
    for name in names:
        tell(Event("begin", name))
        try:
            for cells in rows_of[name]():
                tell(Event("row", name, tuple(cells)))
        except Exception as error:
            tell(Event("failed", name, text=f"{type(error).__name__}: {error}"))
        else:
            tell(Event("end", name))


def print_event(event: Event) -> None:
    """Tells an event on stdout, on a line of its own whatever was printed before."""
    sys.stdout.write("\n" + event.to_line() + "\n")
    sys.stdout.flush()
