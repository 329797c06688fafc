"""The summary and the notification, however a command ends."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from jobs.closing.closing import closing
from jobs.closing.summary import PendingJob
from jobs.console.process import command_line
from jobs.verbs import label as label_module
from jobs.verbs import retry as retry_module
from jobs.verbs.compare import compare
from jobs.verbs.label import label
from jobs.verbs.retry import retry
from pipeline.errors import RunLockedError, TagstreamError
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelOutcome
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, job_record, run_record

PENDING = PendingJob("label", "source", "store")


def close(summary: Path, error: BaseException | None = None, notify: str | None = None) -> Any:
    """The summary of a command that ends so."""
    with contextlib.suppress(*([type(error)] if error else [])), closing(PENDING.summarize, str(summary), notify):
        if error:
            raise error
    return json.loads(summary.read_text())


def test_the_summary_tells_how_the_command_ended(tmp_path: Path) -> None:
    found = close(tmp_path / "deep" / "summary.json", RunLockedError("held by x"))
    assert (found["verb"], found["outcome"], found["exit_code"], found["message"]) == (
        "label",
        "locked",
        5,
        "held by x",
    )


def test_meanwhile_it_says_running_over_what_it_said_before(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text('{"outcome": "done"}')
    with closing(PENDING.summarize, str(path), None):
        found = json.loads(path.read_text())
        assert (found["outcome"], found["exit_code"]) == ("running", None)


def test_a_summary_that_cannot_be_written_fails_before_anything_is_done(tmp_path: Path) -> None:
    with (
        pytest.raises(TagstreamError, match="cannot write the summary"),
        closing(PENDING.summarize, str(tmp_path), None),
    ):
        pytest.fail("it was begun")


def test_one_that_cannot_be_written_at_first_is_notified_of_and_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told.json"
    with (
        pytest.raises(TagstreamError, match="cannot write the summary"),
        closing(PENDING.summarize, str(tmp_path), f"tee {told}"),
    ):
        pytest.fail("it was begun")
    found = json.loads(told.read_text())
    assert (found["outcome"], found["exit_code"]) == ("failed", 1)
    assert "cannot write the summary" in found["message"]
    # The command says the exception itself.
    assert capsys.readouterr().err == ""


def test_one_that_cannot_be_written_in_the_end_fails_the_command_and_is_notified_of(tmp_path: Path) -> None:
    folder, told = tmp_path / "gone", tmp_path / "told.json"

    def run() -> None:
        with closing(PENDING.summarize, str(folder / "summary.json"), f"tee {told}"):
            (folder / "summary.json").unlink()
            folder.rmdir()
            folder.write_text("a file")

    with pytest.raises(TagstreamError, match="cannot write the summary"):
        run()
    found = json.loads(told.read_text())
    assert (found["outcome"], found["exit_code"]) == ("done", 1)
    assert "cannot write the summary" in found["message"]


@pytest.mark.parametrize("error", [None, TagstreamError("no source"), RunLockedError("held")])
def test_who_is_notified_gets_what_the_file_says(tmp_path: Path, error: Exception | None) -> None:
    found = close(tmp_path / "summary.json", error, f"tee {tmp_path / 'told.json'}")
    assert json.loads((tmp_path / "told.json").read_text()) == found


def test_that_nobody_could_be_notified_is_told_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert close(tmp_path / "summary.json", None, "false")["exit_code"] == 0
    assert capsys.readouterr().err == "NOT NOTIFIED: false failed with exit code 1\n"


def test_a_receiver_that_is_none_is_told_before_anything_is_done_and_is_in_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text('{"outcome": "done"}')
    with (
        pytest.raises(TagstreamError, match="cannot be notified"),
        closing(PENDING.summarize, str(path), "no-such-command"),
    ):
        pytest.fail("it was begun")
    assert json.loads(path.read_text())["outcome"] == "failed"


@pytest.mark.parametrize("arguments", [["--notify", "https://hooks/secret"], ["--notify=https://hooks/secret"]])
def test_records_do_not_keep_who_is_notified(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tagstream", "label", "a b", *arguments, "--lock"])
    assert command_line() == "tagstream label 'a b' --lock"


def invoke(command: click.Command, *arguments: object) -> int:
    result = CliRunner().invoke(command, [*map(str, arguments)], standalone_mode=False, catch_exceptions=False)
    return int(result.return_value)


def test_rejects_above_the_limit_are_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = replace(job_record("r"), n_images=10, n_labelled=9, n_rejected=1, n_shards_committed=1)
    monkeypatch.setattr(label_module, "run_job", lambda job: LabelOutcome(record, []))
    path = tmp_path / "summary.json"
    options = ["source", "--store", "store", "--model", "m", "--summary", path, "--max-reject-rate"]
    assert invoke(label, *options, 0.05) == 3
    assert json.loads(path.read_text())["alarms"] == ["reject_rate > 0.05"]
    assert invoke(label, *options, 0.1) == 0
    assert json.loads(path.read_text())["alarms"] == []


def test_a_retry_locks_its_run_and_is_summarized_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = Store(str(tmp_path / "store")), tmp_path / "summary.json"
    store.create_run(run_record("r", labelling={"top_k": 5}))
    locks = []

    def run_job(job: LabelJob) -> LabelOutcome:
        locks.append(job.request.lock)
        return LabelOutcome(job_record("r"), [])

    monkeypatch.setattr(retry_module, "run_job", run_job)
    result = CliRunner().invoke(retry, [store.url, "--lock", "--summary", str(path)], standalone_mode=False)
    assert (result.exception, locks) == (None, [True])
    found = json.loads(path.read_text())
    assert (found["verb"], found["run"], found["outcome"], found["exit_code"]) == ("retry", "r", "done", 0)


def test_settings_that_are_wrong_are_in_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    with pytest.raises(TagstreamError):
        invoke(label, "source", "--store", "store", "--top-k", 0, "--summary", path)
    found = json.loads(path.read_text())
    assert (found["outcome"], found["exit_code"], found["run"]) == ("failed", 1, "")
    assert "top_k is 0" in found["message"]


def test_a_comparison_tells_which_conditions_hold(tmp_path: Path) -> None:
    store, path = Store(str(tmp_path / "store")), tmp_path / "summary.json"
    for run, found in (("a", "dog"), ("b", "cat")):
        store.create_run(run_record(run))
        commit_judged(store, run, {"s": [{"truth": ["dog"], "labels": [found]}]})
    conditions = ["--fail-if", "recall@10 < -0.01", "--fail-if", "hit > 0"]
    assert invoke(compare, store.url, "a", "b", "--summary", path, *conditions) == 4
    found = json.loads(path.read_text())
    assert (found["verb"], found["run_a"], found["run_b"]) == ("compare", "a", "b")
    assert (found["outcome"], found["exit_code"], found["alarms"]) == ("done", 4, ["recall@10 < -0.01"])
    assert found["differences"]["hit"]["value"] == -1.0
    assert found["n_judged"] == 1
    with pytest.raises(Exception, match="no run nothing"):
        invoke(compare, store.url, "a", "nothing", "--summary", path)
    assert json.loads(path.read_text())["outcome"] == "failed"
