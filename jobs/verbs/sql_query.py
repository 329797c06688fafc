"""Runs a user's query so that Ctrl-C stops it and a failure is one sentence."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import duckdb

from pipeline.catalog.connection import Connection
from pipeline.errors import TagstreamError
from pipeline.text import printable, without_traceback

T = TypeVar("T")
_INTERRUPT_EVERY_S = 0.1


def run_interruptibly(connection: Connection, work: Callable[[], T]) -> T:
    """Runs work on a thread of its own, so that this thread can handle Ctrl-C while DuckDB computes.

    Args:
        connection: what the work queries; Ctrl-C interrupts it.
        work: queries the connection and prints or writes the result.

    Returns: what the work returns.

    Raises KeyboardInterrupt where Ctrl-C stopped the work, TagstreamError where DuckDB failed.
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
                # Repeated, because DuckDB ignores an interruption between two of its statements.
                if is_interrupted:
                    connection.interrupt()
            if is_interrupted and future.exception() is not None:
                raise KeyboardInterrupt
            return future.result()
    finally:
        signal.signal(signal.SIGINT, before)


def split_queries(connection: Connection, text: str) -> list[str]:
    """The queries of a text, of which there may be several."""
    try:
        return [statement.query for statement in connection.extract_statements(text)]
    except duckdb.Error:
        # Running the text reports what is wrong with it.
        return [text]


def _in_sentences(work: Callable[[], T]) -> T:
    try:
        return work()
    except TagstreamError as error:
        raise TagstreamError(_sentence(str(error))) from error
    except duckdb.Error as error:
        # Rows are computed as they are fetched, so that a query can fail after its first rows.
        raise TagstreamError(_sentence(f"the query failed: {error}")) from error


def _sentence(message: str) -> str:
    """An error's text without Python's traceback, and without control characters of the store's values."""
    return "\n".join(map(printable, without_traceback(message).split("\n")))
