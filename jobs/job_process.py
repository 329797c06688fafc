"""How a long job's process ends: stopped cleanly, stopped at once, or from outside, with a last word."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
_EXIT_CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}
_LAST_WORDS = (
    "Error: the job's process was ended from outside: killed, perhaps because the machine is out of memory, or Ray "
    "lost its head process (logs: /tmp/ray/session_latest/logs). What is done is kept; run the same command to go on."
)


class Terminated(KeyboardInterrupt):
    """SIGTERM, with which schedulers take a machine back: everything stops as by Ctrl-C."""


def terminate(*_: object) -> NoReturn:
    """Handles SIGTERM."""
    raise Terminated


@contextlib.contextmanager
def job_process() -> Iterator[None]:
    """A job that Ctrl-C or SIGTERM stops cleanly, and a second one at once; whose end is never without a word."""
    if threading.current_thread() is not threading.main_thread():
        # Signals and the process belong to somebody else.
        yield
        return
    with _last_words() as spoken:

        def stop_at_once(number: int, _: object) -> NoReturn:
            spoken()
            os.write(sys.stderr.fileno(), b"\nStopped at once; run the same command to go on.\n")
            os._exit(_EXIT_CODES[signal.Signals(number)])

        def stop(number: int, _: object) -> NoReturn:
            for other in _EXIT_CODES:
                signal.signal(other, stop_at_once)
            # Not through sys.stderr, which the thread that was interrupted may be writing to.
            os.write(sys.stderr.fileno(), b"\nStopping: what is done is kept; a second time stops at once.\n")
            raise (Terminated if number == signal.SIGTERM else KeyboardInterrupt)

        handlers = {number: signal.signal(number, stop) for number in _EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _last_words() -> Iterator[Callable[[], None]]:
    """Says why where this process ends within this context; yields what to call in front of an end that has its words.

    Ray's core ends a process with exit code 1 and without a word when it loses Ray's head process. Another process
    waits for the end of a pipe that only this one holds open.
    """
    command = ["sh", "-c", 'read -r _ || printf "%s\\n" "$0" >&2', _LAST_WORDS]
    read_end, write_end = os.pipe()
    watcher = subprocess.Popen(command, stdin=read_end, stdout=subprocess.DEVNULL, start_new_session=True)
    os.close(read_end)

    def spoken() -> None:
        with contextlib.suppress(OSError):
            os.write(write_end, b"\n")

    try:
        yield spoken
    finally:
        spoken()
        os.close(write_end)
        watcher.wait()
