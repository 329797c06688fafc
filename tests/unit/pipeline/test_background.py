"""What goes on beside a program: threads that last as long as a context, the collector."""

from __future__ import annotations

import gc
import threading

import pytest

from pipeline.background import in_background, without_collector


def test_the_work_runs_while_the_context_lasts_and_has_returned_behind_it() -> None:
    began, events = threading.Event(), []

    def work(is_over: threading.Event) -> None:
        events.append(threading.current_thread().name)
        began.set()
        events.append(is_over.wait(60))

    with in_background("beside", work):
        assert began.wait(60)
        assert events == ["beside"]
    assert events == ["beside", True]


def test_the_work_ends_where_the_context_ends_in_an_error() -> None:
    ended = []
    with pytest.raises(KeyboardInterrupt), in_background("beside", lambda is_over: ended.append(is_over.wait(60))):
        raise KeyboardInterrupt
    assert ended == [True]


def test_work_that_has_returned_before_is_not_waited_for() -> None:
    returned = threading.Event()
    with in_background("beside", lambda _: returned.set()):
        assert returned.wait(60)


def test_the_collector_is_away_for_the_context_and_stays_away_where_it_was_before() -> None:
    # A command that another test ran in this process may have ended with its collector off.
    gc.enable()
    with without_collector():
        assert not gc.isenabled()
        with without_collector():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
