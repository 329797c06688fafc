"""What is told on stderr, as plain lines and as json."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from jobs import cli
from jobs.console import live_line
from jobs.console.live_line import LiveLine
from jobs.console.log import identify_by, render, say, start_log
from jobs.console.process import Terminated
from pipeline.errors import RunLockedError, TagstreamError
from tests.fixtures.checkout import ROOT


@pytest.fixture(autouse=True)
def text_again() -> Iterator[None]:
    yield
    start_log("text")


@pytest.fixture
def json_lines(capsys: pytest.CaptureFixture[str]) -> Any:
    """Starts a log of json; called, it returns what was told since."""
    start_log("json")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_plain_lines_are_as_they_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    say("3 shards changed.", level=logging.WARNING, prefix="Note: ", shard="a")
    logging.getLogger("pipeline.labelling.job").info("shard a committed")
    assert capsys.readouterr().err == "Note: 3 shards changed.\n"


def test_a_line_of_json_has_time_level_message_and_what_it_is_about(json_lines: Any) -> None:
    before = datetime.now(UTC)
    say("größe.", level=logging.WARNING, prefix="Note: ", shard="a/0", n_images=3)
    after = datetime.now(UTC)
    (line,) = json_lines()
    # It is told in whole milliseconds.
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(line["time"]) <= after
    assert line["time"].endswith("+00:00")
    expected = {"level": "warning", "message": "größe.", "shard": "a/0", "n_images": 3}
    assert {name: value for name, value in line.items() if name != "time"} == expected


def test_run_and_job_stand_in_every_line_once_they_are_known(json_lines: Any) -> None:
    known = {"run": "", "job": "2026-01-01T00:00:00.000+00:00"}
    identify_by(lambda: known)
    say("listing")
    known["run"] = "demo-1"
    say("labelling")
    first, second = json_lines()
    assert (first.get("run"), second["run"], second["job"]) == (None, "demo-1", known["job"])


def test_what_the_pipeline_and_libraries_tell_is_json_too(json_lines: Any) -> None:
    logging.getLogger("pipeline.labelling.job").info("shard %s committed", "a", extra={"fields": {"shard": "a"}})
    logging.getLogger("some.library").warning("careful")
    logging.getLogger("some.library").info("chatter")
    with warnings.catch_warnings():
        # Whatever warnings the environment hides.
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    lines = json_lines()
    assert [(line["level"], line.get("shard")) for line in lines] == [
        ("info", "a"),
        ("warning", None),
        ("warning", None),
    ]
    assert "old" in lines[2]["message"]


def test_logins_are_concealed_and_the_line_stays_json(json_lines: Any) -> None:
    say("cannot open \"https://me:secret@host/x?token=secret\" or 's3://a:b@c'")
    (line,) = json_lines()
    assert line["message"] == "cannot open \"https://***@host/x?***\" or 's3://***@c'"


@pytest.fixture
def raising(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """A function that returns what the command exits with where a verb raises this."""

    def exit_code(error: BaseException) -> int:
        def fail(**_: Any) -> None:
            raise error

        monkeypatch.setattr(cli, "tagstream", fail)
        with pytest.raises(SystemExit) as exit_info:
            main()
        return int(exit_info.value.code or 0)

    return exit_code


@pytest.mark.parametrize(
    ("error", "code", "level", "message", "plain"),
    [
        (
            TagstreamError("no source at s3://a:b@c"),
            1,
            "error",
            "no source at s3://***@c",
            "Error: no source at s3://***@c",
        ),
        (RunLockedError("run r is held by x"), 5, "warning", "run r is held by x", "Skipped: run r is held by x"),
        (click.UsageError("no such thing"), 2, "error", "no such thing", "Error: no such thing"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    raising: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    level: str,
    message: str,
    plain: str,
) -> None:
    assert raising(error) == code
    assert capsys.readouterr().err == f"{plain}\n"
    start_log("json")
    assert raising(error) == code
    (line,) = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (line["level"], line["message"]) == (level, message)


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_command_that_is_stopped_adds_no_line_of_clicks(
    main: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: type[BaseException],
    code: int,
) -> None:
    def work(**_: Any) -> None:
        raise stop

    monkeypatch.setattr(cli.tagstream.commands["demo"], "callback", work)
    monkeypatch.setattr(sys, "argv", ["tagstream", "demo"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == code
    assert capsys.readouterr().err == ""


def test_an_error_in_the_code_is_one_line_with_its_traceback(
    raising: Callable[[BaseException], int], json_lines: Any
) -> None:
    assert raising(ZeroDivisionError("by zero")) == 1
    (line,) = json_lines()
    assert (line["level"], line["message"]) == ("error", "by zero")
    assert line["traceback"].startswith("Traceback")


def test_progress_is_lines_of_counters_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch, json_lines: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(live_line, "_PLAIN_S", 0.01)
    drawn, is_third = iter(range(1_000_000)), threading.Event()

    def draw(elapsed_s: float) -> str:
        number = next(drawn)
        if number == 2:
            is_third.set()
        return f"line {number}"

    with LiveLine(draw, lambda: {"n_images": 7, "eta_s": None}):
        assert is_third.wait(60)
    lines = json_lines()
    assert [line["message"] for line in lines[:2]] == ["line 0", "line 1"]
    assert (lines[0]["n_images"], lines[0]["eta_s"]) == (7, None)


def test_a_line_for_later_has_a_mark_where_its_time_goes() -> None:
    assert render("over", logging.ERROR, is_later=True) == b"over\n"
    start_log("json")
    assert json.loads(render("over", logging.ERROR, is_later=True))["time"] == "@TIME@"


JOB = """
import os, signal
from jobs.console.process import job_process
from jobs.console.log import start_log
start_log("json")
with job_process():
    {work}
"""


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ("os._exit(1)", "the job's process was ended from outside"),
        (
            "try: os.kill(os.getpid(), signal.SIGTERM)\n    except KeyboardInterrupt: pass",
            "Stopping: what is done is kept",
        ),
    ],
)
def test_signals_and_last_words_are_json(work: str, message: str) -> None:
    job = [sys.executable, "-c", JOB.format(work=work)]
    told = subprocess.run(job, capture_output=True, text=True, cwd=ROOT, timeout=240, check=False).stderr
    (line,) = (json.loads(line) for line in told.splitlines())
    assert line["message"].startswith(message)
    assert line["time"].startswith("20")
