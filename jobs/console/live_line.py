"""One live line about a running job; where stderr is no terminal, a plain line every few seconds."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from jobs.console.log import is_json, say
from pipeline.labelling.progress import ProgressSnapshot

_REDRAW_S = 0.25
_PLAIN_S = 5.0
_CLOCK = r"(\d+ d )?(\d+:)?\d+:\d\d"
_PROGRESS = re.compile(rf".+ \.\.\. {_CLOCK}|.+ · {_CLOCK} elapsed( · .+)?")


class LiveLine:
    """Draws a job's progress on stderr while the context lasts.

    Args:
        describe: makes the line, given the seconds since the start.
        counters: the same facts as fields of a JSON log line.
    """

    def __init__(self, describe: Callable[[float], str], counters: Callable[[], dict[str, Any]] = dict) -> None:
        self._describe = describe
        self._counters = counters
        self._is_terminal = sys.stderr.isatty() and not is_json()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True, name="live-line")
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if self._is_terminal:
            draw("")

    def _draw(self) -> None:
        last = ""
        while not self._stop.wait(_REDRAW_S if self._is_terminal else _PLAIN_S):
            line = self._describe(time.monotonic() - self._started)
            if self._is_terminal:
                draw(line)
            elif line != last:
                say(line, **self._counters())
            last = line


def draw(line: str) -> None:
    """Replaces the last line on the terminal by this one, cut to the terminal's width."""
    _write("\r\x1b[2K" + line[: shutil.get_terminal_size().columns - 1])


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def is_progress(line: str) -> bool:
    """Whether a live line wrote this line of a log."""
    return bool(_PROGRESS.fullmatch(line))


def describe(at: ProgressSnapshot, elapsed_s: float) -> str:
    """The live line of a labelling job after so many seconds."""
    if not at.n_images:
        return f"{at.phase} ... {clock(at.phase_s)}"
    parts = [
        f"{at.n_shards_done:,}/{at.n_shards:,} shards",
        f"{at.n_images:,} images",
        f"{at.n_rejected:,} rejected",
        *([f"{at.n_reused:,} reused"] if at.n_reused else []),
        *([f"{at.n_near_duplicates:,} near-duplicates"] if at.n_near_duplicates else []),
        f"{clock(elapsed_s)} elapsed",
    ]
    if at.images_per_s:
        parts.insert(2, f"{at.images_per_s:,.{0 if at.images_per_s >= 10 else 1}f} images/s")
    if at.eta_s is not None:
        parts.append(f"{clock(at.eta_s)} to go")
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """A duration as a clock shows it: 1:05, 2:03:04, 3 d 04:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
