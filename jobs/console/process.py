"""How a long job's process ends: stopped cleanly, stopped at once, or from outside, with a last word."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import click

from jobs.console.log import TIME_MARK, is_json, render
from pipeline.errors import RunLockedError

EXIT_FAILED = 1
EXIT_LOCKED = 5
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
_EXIT_CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}
_LAST_WORDS = (
    "the job's process was ended from outside: killed, perhaps because the machine is out of memory, or Ray "
    "lost its head process (logs: /tmp/ray/session_latest/logs)."
)
# Of a job that only measures.
NOTHING_KEPT = {"kept": "nothing is kept", "again": "run the same command to begin anew"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, with which schedulers take a machine back: everything stops as by Ctrl-C."""


def exit_code_of(error: BaseException) -> int:
    """What the command exits with when it ends so."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        # click makes an Abort of what interrupts it.
        is_terminated = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
        return EXIT_TERMINATED if is_terminated else EXIT_INTERRUPTED
    return EXIT_LOCKED if isinstance(error, RunLockedError) else EXIT_FAILED


def terminate(*_: object) -> NoReturn:
    """Handles SIGTERM."""
    raise Terminated


@contextlib.contextmanager
def job_process(kept: str = "what is done is kept", again: str = "run the same command to go on") -> Iterator[None]:
    """A job that Ctrl-C or SIGTERM stops cleanly, and a second one at once; whose end is never without a word.

    Args:
        kept: what remains of a job that was stopped.
        again: what to do then.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals and the process belong to somebody else.
        yield
        return
    with _last_words(f"{_LAST_WORDS} {kept.capitalize()}; {again}.") as spoken:

        def stop_at_once(number: int, _: object) -> NoReturn:
            spoken()
            _write_at_once(f"Stopped at once; {again}.")
            os._exit(_EXIT_CODES[signal.Signals(number)])

        def stop(number: int, _: object) -> NoReturn:
            for other in _EXIT_CODES:
                signal.signal(other, stop_at_once)
            _write_at_once(f"Stopping: {kept}; a second time stops at once.")
            raise (Terminated if number == signal.SIGTERM else KeyboardInterrupt)

        handlers = {number: signal.signal(number, stop) for number in _EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _write_at_once(message: str) -> None:
    """Not through sys.stderr, which the thread that was interrupted may be writing to."""
    # Below a live line, which json has not.
    start = b"" if is_json() else b"\n"
    os.write(sys.stderr.fileno(), start + render(message, logging.WARNING))


@contextlib.contextmanager
def _last_words(words: str) -> Iterator[Callable[[], None]]:
    """Says these words where this process ends within this context; yields what to call before an end with its own.

    Ray's core ends a process with exit code 1 and without a word when it loses Ray's head process. Another process
    waits for the end of a pipe that only this one holds open.
    """
    line = render("Error: " * (not is_json()) + words, logging.ERROR, is_later=True).decode().rstrip()
    script = f'read -r _ || printf "%s\\n" "$0" | sed "s/{TIME_MARK}/$(date -u +%FT%T.000+00:00)/" >&2'
    command = ["sh", "-c", script, line]
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


def command_line() -> str:
    """This invocation as records keep it, to be typed again: without who is notified, which is a secret."""
    words, rest = ["tagstream"], iter(sys.argv[1:])
    for word in rest:
        if word == "--notify":
            next(rest, None)
        elif not word.startswith("--notify="):
            words.append(word)
    return shlex.join(words)
