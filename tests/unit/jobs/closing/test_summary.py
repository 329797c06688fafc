"""What a summary tells. With real jobs: tests/e2e/test_schedule.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.closing.outcome import Outcome
from jobs.closing.summary import PendingJob, summarize_comparison, write_summary
from pipeline.analysis.comparison import compare_runs
from pipeline.catalog import open_store
from pipeline.errors import TagstreamError
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.store.store import Store
from schemas import ComparisonSummary
from tests.fixtures.stored.tables import commit_judged, run_record

FAILED = Outcome("failed", 1, "it cannot be read")


def test_a_job_that_could_not_be_made_tells_what_was_asked_for() -> None:
    summary = PendingJob("label", "source", "store").summarize(FAILED)
    assert (summary.verb, summary.source, summary.store, summary.run) == ("label", "source", "store", "")
    assert (summary.outcome, summary.exit_code, summary.message) == ("failed", 1, "it cannot be read")


def test_logins_are_kept_out_of_it() -> None:
    outcome = Outcome("failed", 1, "s3://me:secret@source cannot be read")
    text = PendingJob("label", "s3://me:secret@source", "s3://me:secret@store").summarize(outcome).to_json()
    assert "s3://***@source cannot be read" in text
    assert "s3://***@store" in text
    assert "secret" not in text


def test_a_job_that_fails_before_its_run_is_known_tells_its_source_and_its_start(tmp_path: Path) -> None:
    source = str(tmp_path / "nowhere")
    job = LabelJob(LabelRequest(source=source, store=str(tmp_path / "store"), model="demo"))
    with pytest.raises(TagstreamError, match="does not exist"):
        job.run()
    summary = PendingJob("label", "nowhere", "store", job).summarize(FAILED)
    assert (summary.source, summary.started, summary.n_shards_source) == (source, job.started_at, 0)


def test_what_was_left_out_of_the_source_is_in_it_and_what_of_that_is_new(tmp_path: Path) -> None:
    job = LabelJob(LabelRequest(source=("a", "b"), store=str(tmp_path / "store"), model="demo"))
    job.skipped, job.n_skipped_before = {".mp4": 12, "link": 1}, 3
    summary = PendingJob("label", "a b", "store", job).summarize(FAILED)
    assert (summary.skipped, summary.n_skipped, summary.n_skipped_new) == ({".mp4": 12, "link": 1}, 13, 10)


def test_a_comparison_that_failed_tells_no_difference() -> None:
    summary = summarize_comparison("store", ("a", "b"), None, FAILED)
    assert summary == ComparisonSummary(
        store="store", run_a="a", run_b="b", outcome="failed", exit_code=1, message="it cannot be read", alarms=[]
    )


def test_a_comparison_tells_its_differences(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    for run, found in (("a", "dog"), ("b", "cat")):
        store.create_run(run_record(run))
        commit_judged(store, run, {"s": [{"truth": ["dog"], "labels": [found]}]})
    comparison = compare_runs(open_store(store.url), "a", "b", 10, "labels")
    summary = summarize_comparison(store.url, ("a", "b"), comparison, Outcome("done", 0))
    assert (summary.k, summary.n_paired, summary.n_judged) == (10, 1, 1)
    assert summary.differences["hit"]["value"] == -1.0


def test_it_is_written_to_an_object_store_over_a_former_one(s3: str, tmp_path: Path) -> None:
    url = f"{s3}/{tmp_path.name}/summary.json"
    for outcome in (Outcome(), Outcome("done", 0)):
        write_summary(url, PendingJob("label", "source", "store").summarize(outcome))
    store = Store(url)
    assert json.loads(store.filesystem.cat_file(store.root))["outcome"] == "done"
