"""The prompt of `tagstream sql` on a terminal, and Ctrl-C while a query runs."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.store.store import Store
from tests.fixtures.processes.commands import TAGSTREAM, running, wait_until
from tests.fixtures.stored.tables import commit_shard, run_record

ENDLESS = "SELECT count(*) FROM range(1000000000000)"
CURSOR_ASKED, CURSOR_AT_TOP = b"\x1b[6n", b"\x1b[1;1R"
PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"
"""Written when the prompt begins to read, and when it hands over what was typed."""
PATIENCE_S = 180
"""For the command to start and to answer, however busy the machine."""


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._unread = b""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.execve(TAGSTREAM, [TAGSTREAM, *arguments], environment)

    def send(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, text: str) -> str:
        """What is written until this text is."""
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self._unread:
            assert time.monotonic() < deadline, self._unread.decode(errors="replace")
            if select.select([self._master], [], [], 0.1)[0]:
                n_asked = self._unread.count(CURSOR_ASKED)
                self._unread += os.read(self._master, 65536)
                # What is asked may come in two pieces.
                if self._unread.count(CURSOR_ASKED) > n_asked:
                    os.write(self._master, CURSOR_AT_TOP)
        before, found, self._unread = self._unread.partition(text.encode())
        return (before + found).decode(errors="replace")

    def query_s(self) -> float:
        """Seconds of CPU of the threads that compute queries: all but the one that the prompt is in."""
        return sum(thread.user_time for thread in psutil.Process(self.pid).threads() if thread.id != self.pid)

    def wait_for_query(self, cpu_s: float) -> None:
        """Waits until queries have computed for this long from now on."""
        before, deadline = self.query_s(), time.monotonic() + PATIENCE_S
        while self.query_s() < before + cpu_s:
            assert time.monotonic() < deadline, "no query is computed"
            time.sleep(0.05)

    def exit_code(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            assert time.monotonic() < deadline, "the command does not end"
            time.sleep(0.05)
        return os.waitstatus_to_exitcode(ended[1])

    def close(self) -> None:
        os.close(self._master)


@pytest.fixture
def store(tmp_path: Path) -> str:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1"))
    commit_shard(store, "run-1", "0")
    return store.url


@pytest.fixture
def terminal(store: str, environment: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    """The prompt, whose user has asked something before."""
    history = tmp_path / "state" / "tagstream" / "sql_history"
    history.parent.mkdir(parents=True)
    history.write_text("\n# 2026-01-01 00:00:00\n+SELECT 41\n++ 1 AS answer;\n")
    terminal = Terminal(["sql", store], {**environment, "TERM": "xterm", "XDG_STATE_HOME": str(tmp_path / "state")})
    terminal.read_until(PASTE_ON)
    yield terminal
    terminal.close()


def test_what_was_asked_before_can_be_asked_again(terminal: Terminal) -> None:
    terminal.send("\x1b[A")
    terminal.read_until("1 AS answer;")
    terminal.send("\r")
    assert "\r\n    42\r\n" in terminal.read_until("1 row, ")


def test_tab_completes(terminal: Terminal) -> None:
    terminal.send("from cooc\t")
    terminal.read_until("curring(")
    terminal.send("'label 1');\r")
    assert "label 2" in terminal.read_until("1 row, ")


def test_ctrl_c_stops_a_query_and_the_prompt_goes_on(terminal: Terminal) -> None:
    terminal.send(f"{ENDLESS};\r")
    terminal.read_until(PASTE_OFF)
    terminal.wait_for_query(0.5)
    terminal.send("\x03")
    terminal.read_until("Stopped after")
    # What is typed before the prompt reads is the terminal's, which takes Ctrl-D for itself.
    terminal.read_until(PASTE_ON)
    terminal.send("SELECT 41 + 1 AS answer;\r")
    assert "\r\n    42\r\n" in terminal.read_until("1 row, ")
    terminal.read_until(PASTE_ON)
    terminal.send("\x04")
    assert terminal.exit_code() == 0


def test_ctrl_c_at_an_empty_prompt_changes_nothing(terminal: Terminal) -> None:
    terminal.send("\x03\x03SELECT 41 + 1 AS answer;\r")
    assert "\r\n    42\r\n" in terminal.read_until("1 row, ")
    terminal.read_until(PASTE_ON)
    terminal.send(".quit\r")
    assert terminal.exit_code() == 0


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_ctrl_c_stops_the_one_query_of_a_command(
    store: str, environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    out = tmp_path / "results"
    out.mkdir()
    endless = "SELECT * FROM range(1000000000000)"
    with running([TAGSTREAM, "sql", store, endless, "--out", out / f"x.{name}"], environment) as process:
        wait_until(lambda: any(path.stat().st_size for path in out.iterdir()), process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(out.iterdir()) == []
