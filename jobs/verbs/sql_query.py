"""A user's query, run so that Ctrl-C stops it and its failures are a sentence."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pipeline.catalog.connection import Connection

T = TypeVar("T")
_INTERRUPT_EVERY_S = 0.1


def run_interruptibly(connection: Connection, work: Callable[[], T]) -> T:
    """Does work with the connection on a thread of its own, so that this one hears Ctrl-C while DuckDB computes.

    Raises KeyboardInterrupt where Ctrl-C stopped the work, TagstreamError for what DuckDB raises.
    """
    is_interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal is_interrupted
        is_interrupted = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="query") as thread:
            future = thread.submit(_in_sentences, work)
            while not wait([future], timeout=_INTERRUPT_EVERY_S).done:
                # More than once: DuckDB forgets an interruption that comes between two of its statements.
                if is_interrupted:
                    connection.interrupt()
            if is_interrupted and future.exception() is not None:
                raise KeyboardInterrupt
            return future.result()
    finally:
        signal.signal(signal.SIGINT, before)


def _in_sentences(work: Callable[[], T]) -> T:
    import duckdb

    from pipeline.errors import TagstreamError

    try:
        return work()
    except TagstreamError as error:
        raise TagstreamError(_sentence(str(error))) from error
    except duckdb.Error as error:
        # Rows are computed while they are fetched, hence fail after the first ones too.
        raise TagstreamError(_sentence(f"the query failed: {error}")) from error


def _sentence(message: str) -> str:
    """An error's text without what must not reach a terminal: values of the store in it, Python's tracebacks."""
    from pipeline.text import printable, without_traceback

    return "\n".join(map(printable, without_traceback(message).split("\n")))
