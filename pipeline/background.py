"""Work in a thread beside what a program does."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_has_abandoned = threading.Event()


@contextmanager
def in_background(name: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Does work in a daemon thread while the context lasts, and waits for the thread at its end.

    Args:
        name: name of the thread.
        work: gets an event that is set where the context ends; it has to return soon after.
    """
    is_over = threading.Event()
    thread = threading.Thread(target=work, args=(is_over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def without_collector() -> Iterator[None]:
    """Keeps Python's garbage collector away while the context lasts.

    What torch and transformers make of objects when they are imported stays. To look at them again and again takes 0.7
    of 4 s.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def abandon_threads() -> None:
    """Notes that threads of this process are at work that nobody wants any more, perhaps for ever."""
    _has_abandoned.set()


def has_abandoned_threads() -> bool:
    """Whether the process is to end without waiting for its threads. Python would wait for those of executors."""
    return _has_abandoned.is_set()
