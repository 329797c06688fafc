"""Work in a thread beside what a program does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
