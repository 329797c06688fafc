"""What a job has done so far, counted."""

from __future__ import annotations

import time
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.dataflow.decode_place import Choice
from pipeline.labelling import progress as progress_module
from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.committing import Commit
from pipeline.labelling.pending import ShardPlan
from pipeline.labelling.progress import Progress
from pipeline.labelling.tally import RejectTally, StartedJob, Tally
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.shard import Shard
from schemas import IMAGES, LABELS

SHARDS = [Shard(str(number), f"/data/{number}.tar", "tar") for number in range(4)]
JOB = StartedJob(
    run="r",
    started="2026-01-01T00:00:00.000+00:00",
    command="tagstream label https://me:secret@host/a.tar",
    plan=ShardPlan(SHARDS[1:], 4, SHARDS[1:2], {}),
    pool=plan_pool([Node(2, 0)], LabelSettings(batch_size=8)),
    predicted_s=1.23456,
    is_retry=False,
)


OF_IMAGES = ("images", "labelled", "labels", "flat", "strange", "reused", "near_duplicates")
NOTHING = dict.fromkeys(("shards", *OF_IMAGES, "shards_listed", "listed"), 0)


def images(shard: str, *faults: str | None) -> pa.Table:
    """One row a sample: labelled, or rejected with this error."""
    rows = [
        {"shard": shard, "index": index, "key": f"k{index}", "status": "rejected", "stage": "read", "error": fault}
        | {"message": f"at https://me:secret@{shard}"}
        if fault
        else {"shard": shard, "index": index, "key": f"k{index}", "status": "labelled", "flat": index == 2}
        for index, fault in enumerate(faults)
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def commit(shard: str, *faults: str | None, n_labels: int = 0, n_strange: int = 0, is_written: bool = True) -> Commit:
    labels = pa.Table.from_pylist([{"shard": shard, "index": 0, "rank": rank} for rank in range(n_labels)], LABELS)
    seconds = {"read": 0.5, "decode": 1.0, "infer": 2.0}
    return Commit(
        WholeShard(shard, images(shard, *faults), labels, None, None, seconds, n_strange=n_strange), is_written, 0.25
    )


class TestTally:
    """Shards of a job as they are committed."""

    def test_the_record_tells_why_branches_copied_their_images_tokens(self) -> None:
        tally = Tally()
        assert tally.job_record(JOB, Progress(), "running").why_copied == ""
        of_one_actor = commit("a", None)
        tally.add(replace(of_one_actor, shard=replace(of_one_actor.shard, why_copied="a reason")))
        tally.add(commit("b", None))
        assert tally.job_record(JOB, Progress(), "done").why_copied == "a reason"

    def test_shards_images_and_labels_are_counted(self) -> None:
        tally = Tally()
        tally.add(commit("a", None, "NoImage", None, n_labels=5))
        tally.add(commit("b", None, n_labels=2, n_strange=1))
        assert tally.counts == {
            **NOTHING,
            "shards": 2,
            "images": 4,
            "labelled": 3,
            "labels": 7,
            "flat": 1,
            "strange": 1,
        }
        assert [(found["error"], found["n_images"]) for found in tally.rejects.most_first()] == [("NoImage", 1)]

    def test_a_shard_that_was_not_written_counts_for_the_seconds_only(self) -> None:
        tally = Tally()
        tally.add(commit("a", None, "NoImage", n_labels=5, is_written=False))
        assert tally.counts == NOTHING
        assert tally.rejects.most_first() == []
        record = tally.job_record(JOB, Progress(), "done")
        assert record.seconds_by_stage == {"read": 0.5, "decode": 1.0, "infer": 2.0, "write": 0.25}

    def test_what_is_counted_later_does_not_change_counts_that_were_handed_out(self) -> None:
        tally = Tally()
        before = tally.counts
        tally.add(commit("a", None))
        assert before["images"] == 0


class TestJobRecord:
    """The record of a job at some moment."""

    def test_the_record_holds_the_counts_and_what_was_known_before(self) -> None:
        tally = Tally()
        tally.add(commit("a", None, "NoImage", None, n_labels=5))
        tally.add(commit("b", None, n_labels=2))
        record = tally.job_record(JOB, Progress(), "running")
        assert (record.run, record.started, record.outcome) == ("r", JOB.started, "running")
        assert (record.n_shards_source, record.n_shards_done_before, record.n_shards_changed) == (4, 1, 1)
        assert (record.n_shards_committed, record.n_images, record.n_labelled) == (2, 4, 3)
        assert (record.n_rejected, record.n_labels, record.n_flat, record.n_retried) == (1, 7, 1, 0)
        assert record.seconds_by_stage == {"read": 1.0, "decode": 2.0, "infer": 4.0, "write": 0.5}
        assert record.workers == {"actors": 1, "device": "cpu", "batch_size": 8}
        assert record.predicted_s == 1.235

    def test_the_record_tells_where_images_are_decoded_and_why(self) -> None:
        progress = Progress(decoding=Choice("read", "9 CPUs are free"))
        workers = Tally().job_record(JOB, progress, "running").workers
        assert (workers["decode_in"], workers["decode_reason"]) == ("read", "9 CPUs are free")

    def test_logins_in_the_command_and_in_the_error_are_concealed(self) -> None:
        record = Tally().job_record(JOB, Progress(), "failed", "cannot read https://me:secret@host/a.tar")
        assert record.command == "tagstream label https://***@host/a.tar"
        assert record.message == "cannot read https://***@host/a.tar"

    def test_all_images_of_a_retry_are_retried(self) -> None:
        tally = Tally()
        tally.add(commit("a", None, "NoImage", None))
        assert tally.job_record(replace(JOB, is_retry=True), Progress(), "done").n_retried == 3

    def test_the_rate_and_the_time_of_labelling_are_those_of_the_progress(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        progress = Progress()
        monkeypatch.setattr(progress_module, "_MIN_RATE_S", 0.0)
        progress.add_rows(4, 0)
        time.sleep(0.05)
        progress.add_rows(10, 0)
        record = Tally().job_record(JOB, progress, "done")
        assert record.labelling_s == pytest.approx(progress.labelling_s, abs=0.001)
        assert record.images_per_s == pytest.approx(10 / progress.labelling_s, abs=0.01)

    def test_the_clock_runs_from_the_moment_the_tally_is_made(self) -> None:
        tally = Tally()
        time.sleep(0.05)
        record = tally.job_record(JOB, Progress(), "done")
        assert 0.05 <= record.seconds <= tally.elapsed_s + 0.001


class TestRejects:
    """Rejected images by class."""

    def test_classes_are_counted_over_shards_the_most_first_each_with_its_first_example_and_no_login(self) -> None:
        tally = RejectTally()
        tally.add(images("a", None, "NoImage", "LinkMember"))
        tally.add(images("b", "LinkMember", None))
        common = {"stage": "read", "shard": "a", "message": "at https://***@a"}
        assert tally.most_first() == [
            {"n_images": 2, "error": "LinkMember", "key": "k2", **common},
            {"n_images": 1, "error": "NoImage", "key": "k1", **common},
        ]

    def test_where_nothing_was_rejected_there_is_nothing(self) -> None:
        tally = RejectTally()
        tally.add(images("a", None))
        assert tally.most_first() == []
