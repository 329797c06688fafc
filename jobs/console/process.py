"""How a long job's process ends: stopped cleanly, stopped at once, or killed; each with a message."""

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
from pipeline.cluster.ray_session import log_folder
from pipeline.errors import RunLockedError

EXIT_FAILED = 1
# What `--fail-if` asked for holds.
EXIT_CONDITION_MET = 4
EXIT_LOCKED = 5
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
_EXIT_CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}
_LAST_WORDS = (
    "the job's process was ended from outside: killed, perhaps because the machine is out of memory, or by a crash of "
    "native code; or Ray lost its head process (logs: {logs})."
)
# What `job_process` says of a job that only measures.
NOTHING_KEPT = {"kept": "nothing is kept", "again": "run the same command to begin anew"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers send to take a machine back; it stops a job as Ctrl-C does."""


def exit_code_of(error: BaseException) -> int:
    """The exit code of a command that ends with this exception."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        # click turns a KeyboardInterrupt into an Abort.
        is_terminated = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
        return EXIT_TERMINATED if is_terminated else EXIT_INTERRUPTED
    return EXIT_LOCKED if isinstance(error, RunLockedError) else EXIT_FAILED


def terminate(*_: object) -> NoReturn:
    """Handles SIGTERM."""
    raise Terminated


@contextlib.contextmanager
def job_process(kept: str = "what is done is kept", again: str = "run the same command to go on") -> Iterator[None]:
    """While the context lasts, Ctrl-C or SIGTERM stops the job cleanly, and a second one stops it at once.

    Every end is explained on stderr, also that of a process that is killed.

    Args:
        kept: what is kept of a job that was stopped, as a clause.
        again: how to go on after that, as a clause.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may handle signals; here the process belongs to another program.
        yield
        return
    with _last_words(f"{_LAST_WORDS.format(logs=log_folder())} {kept.capitalize()}; {again}.") as spoken:

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
    """Writes a line past sys.stderr, which the interrupted thread may be writing to."""
    # Starts below the live line, which a JSON log does not have.
    start = b"" if is_json() else b"\n"
    os.write(sys.stderr.fileno(), start + render(message, logging.WARNING))


@contextlib.contextmanager
def _last_words(words: str) -> Iterator[Callable[[], None]]:
    """Writes these words to stderr if the process ends within this context.

    Ray's core ends a process silently, with exit code 1, when it loses Ray's head process. So another process waits for
    the end of a pipe that only this one holds open, and writes the words then.

    Yields: a function to call before an end that has its own message; the words are not written then.
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
    """The command line of this process, for a record, without `--notify`, whose address is a secret."""
    words, rest = ["tagstream"], iter(sys.argv[1:])
    for word in rest:
        if word == "--notify":
            next(rest, None)
        elif not word.startswith("--notify="):
            words.append(word)
    return shlex.join(words)
