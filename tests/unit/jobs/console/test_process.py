"""How a job's process ends; each in a process of its own, with a job that sleeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.checkout import ROOT

# For a process to end, on a laden machine too. What is to be stopped would take longer by itself.
WAIT_S = 240
# Cleaning up may take minutes, as it does where a store no longer answers.
JOB = """
import os, sys, time
from jobs.console.process import NOTHING_KEPT, job_process
with job_process({sentences}):
    try:
        print("working", flush=True)
        {work}
    finally:
        print("cleaning up", flush=True)
        time.sleep({clean_up_s})
"""


def start(work: str, clean_up_s: float, sentences: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", JOB.format(work=work, clean_up_s=clean_up_s, sentences=sentences)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_job_clean_up(number: signal.Signals) -> None:
    process = start("time.sleep(600)", clean_up_s=0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=WAIT_S)

    assert output == "cleaning up\n"
    assert "a second time stops at once" in errors
    assert "Traceback" in errors  # The command turns the exception into its exit code.
    assert "ended from outside" not in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_stops_at_once(number: signal.Signals, code: int) -> None:
    process = start("time.sleep(600)", clean_up_s=600)
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning up\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=WAIT_S)

    assert process.returncode == code
    assert "Stopped at once" in errors
    assert "ended from outside" not in errors


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_an_end_from_outside_is_explained(end: str) -> None:
    _, errors = start(end, clean_up_s=0).communicate(timeout=WAIT_S)

    assert errors.startswith("Error: the job's process was ended from outside")
    assert "run the same command to go on" in errors


def test_a_job_that_keeps_nothing_does_not_say_that_it_does() -> None:
    stopped = start("time.sleep(600)", clean_up_s=600, sentences="**NOTHING_KEPT")
    stopped.send_signal(signal.SIGINT)
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == "cleaning up\n"
    stopped.send_signal(signal.SIGINT)
    killed = start("os._exit(1)", clean_up_s=0, sentences="**NOTHING_KEPT")
    of_stopped, of_killed = (process.communicate(timeout=WAIT_S)[1] for process in (stopped, killed))

    assert "Stopping: nothing is kept; a second time stops at once.\n" in of_stopped
    assert "Stopped at once; run the same command to begin anew.\n" in of_stopped
    assert of_killed.endswith(" Nothing is kept; run the same command to begin anew.\n")


def test_an_end_of_its_own_needs_no_explanation() -> None:
    _, errors = start("pass", clean_up_s=0).communicate(timeout=WAIT_S)
    assert errors == ""


def test_nothing_is_left_running() -> None:
    process = start("sys.stdin.read()", clean_up_s=0)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    # With its standard input the job ends.
    process.communicate(timeout=WAIT_S)

    assert len(children) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(children[0]), 0)
