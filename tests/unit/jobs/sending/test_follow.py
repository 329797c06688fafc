"""How the log of a job on a cluster is shown."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import cast

import pytest

from jobs.sending.follow import follow
from pipeline.cluster.submission import JobCluster, SubmittedJob

LINES = [
    "2026-11-22 01:48:05,095\tINFO job_manager.py:581 -- Runtime env is setting up.",
    "Running entrypoint for job label-1: exec python -m jobs.cli label s3://b",
    "loading the model ... 0:05",
    "1/4 shards · 50 images · 12 images/s · 0 rejected · 0:30 elapsed",
    "Labelled 200 images in 4 shards",
]


class Cluster:
    def __init__(self, lines: list[str], exit_code: int) -> None:
        self._lines, self._exit_code = lines, exit_code

    def follow(self, _: str) -> Iterator[str]:
        yield from self._lines

    def job(self, job_id: str) -> SubmittedJob:
        return SubmittedJob(job_id, "label s3://b", "failed", None, None, "Error: no shards", self._exit_code)


def shown(lines: list[str], exit_code: int = 0) -> int:
    return follow(cast(JobCluster, Cluster(lines, exit_code)), "label-1")


def test_without_a_terminal_progress_goes_to_standard_error_and_the_rest_to_the_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown(LINES) == 0
    output, errors = capsys.readouterr()
    assert output.splitlines() == LINES[4:]
    assert errors.splitlines() == LINES[2:4]


def test_on_a_terminal_progress_is_one_line_that_is_redrawn_and_removed_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    shown(LINES)
    assert terminal.getvalue().split("\r\x1b[2K") == ["", *LINES[2:4], "", ""]
    assert capsys.readouterr().out.splitlines() == LINES[4:]


def test_what_the_log_ends_with_is_not_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(["Error: no shards"], exit_code=1) == 1
    output, errors = capsys.readouterr()
    assert (output, errors) == ("Error: no shards\n", "Job label-1: failed, exit code 1.\n")


def test_a_failed_jobs_exit_code_is_returned_with_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown([], exit_code=3) == 3
    assert capsys.readouterr().err == "Job label-1: failed, exit code 3. Error: no shards\n"
