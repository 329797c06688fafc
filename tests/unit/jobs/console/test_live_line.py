"""The live line of a running job."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from jobs.console import live_line
from jobs.console.live_line import LiveLine, clock, describe, is_progress
from jobs.verbs.train import describe as describe_training
from pipeline.labelling.progress import Progress, ProgressSnapshot
from pipeline.training.progress import TrainProgress


def snapshot(**changed: object) -> ProgressSnapshot:
    values: dict[str, object] = {
        "phase": "labelling",
        "n_shards": 1200,
        "n_shards_done": 34,
        "n_images": 34567,
        "n_rejected": 12,
        "images_per_s": 987.6,
        "eta_s": 3723.0,
    }
    return ProgressSnapshot(**{**values, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (65, "1:05"),
        (3599.7, "1:00:00"),
        (7384, "2:03:04"),
        (86399.9, "1 d 00:00"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 04:00"),
    ],
)
def test_the_clock_shows_what_a_person_reads(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_line_tells_of_shards_images_rate_rejects_and_time() -> None:
    assert describe(snapshot(), 65.0) == (
        "34/1,200 shards · 34,567 images · 988 images/s · 12 rejected · 1:05 elapsed · 1:02:03 to go"
    )


def test_images_whose_labels_are_reused_are_told_where_there_are_any() -> None:
    assert " · 12 rejected · 1,234 reused · " in describe(snapshot(n_reused=1234), 65.0)


def test_a_rate_that_is_not_known_is_left_out() -> None:
    assert "images/s" not in describe(snapshot(images_per_s=0.0), 1.0)


def test_without_an_estimate_the_line_does_not_guess() -> None:
    assert describe(snapshot(eta_s=None), 65.0).endswith("12 rejected · 1:05 elapsed")


def test_before_the_first_image_the_line_tells_what_the_job_does() -> None:
    assert describe(snapshot(phase="starting Ray", n_images=0, phase_s=7.0), 99.0) == "starting Ray ... 0:07"


@pytest.mark.parametrize("elapsed_s", [0, 65, 7384, 3 * 86400])
def test_lines_of_progress_are_known_again_in_a_log(elapsed_s: float) -> None:
    training = TrainProgress()
    lines = [describe(snapshot(), elapsed_s), describe(snapshot(n_images=0), elapsed_s)]
    lines += [describe(snapshot(eta_s=None), elapsed_s), describe_training(training, elapsed_s)]
    training.step, training.n_steps = 5, 10
    lines.append(describe_training(training, elapsed_s))
    assert [line for line in lines if not is_progress(line)] == []


@pytest.mark.parametrize(
    "line", ["", "Labelled 200 images in 4 shards: 1,000 labels, 30.3 s", "Note: one · two.", "..."]
)
def test_other_lines_are_no_progress(line: str) -> None:
    assert not is_progress(line)


class Terminal(io.StringIO):
    is_terminal = True

    def isatty(self) -> bool:
        return self.is_terminal


def draw(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> str:
    """What is written while a job runs, until the line was made three times: two of them are drawn by then."""
    terminal = Terminal()
    terminal.is_terminal = is_terminal
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(live_line, "_REDRAW_S", 0.01)
    monkeypatch.setattr(live_line, "_PLAIN_S", 0.01)
    monkeypatch.setenv("COLUMNS", "20")
    progress = Progress()
    progress.begin("loading the model of a long name")
    n_made, is_third = iter(range(1, 1_000_000)), threading.Event()

    def make(elapsed_s: float) -> str:
        if next(n_made) == 3:
            is_third.set()
        return describe(progress.snapshot(), elapsed_s)

    with LiveLine(make):
        assert is_third.wait(240)
    return terminal.getvalue()


def test_on_a_terminal_the_line_is_redrawn_in_place_cut_to_its_width_and_removed_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = draw(monkeypatch, is_terminal=True)
    lines = written.split("\r\x1b[2K")
    assert lines[1] == "loading the model o"
    assert (lines[0], lines[-1], "\n" in written) == ("", "", False)


def test_without_a_terminal_lines_are_plain_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    written = draw(monkeypatch, is_terminal=False)
    lines = written.splitlines()
    assert lines[0].startswith("loading the model of a long name ... ")
    assert len(set(lines)) == len(lines)
    assert "\x1b" not in written
