"""Shards on their way through a job: those that get lost, cannot be read, or come too late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from pipeline.dataflow.waves import NOTHING_YET
from pipeline.errors import StorageError, TagstreamError
from pipeline.labelling import shard_flow
from pipeline.labelling.assignment import Assignment
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.labelling.time_limit import TimeLimit
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import label_here, labelling_by, records_of

pytestmark = pytest.mark.usefixtures("without_ray")


def test_shards_of_which_nothing_came_back_fail_the_job(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(lambda *_: (row for row in ())))
    with pytest.raises(TagstreamError, match="3 of 3 shards came back incomplete; run the command again"):
        LabelJob(label_request).run()
    (record,) = records_of(label_request)
    assert (record.outcome, record.message[:15]) == ("failed", "3 of 3 shards c")


def test_rows_are_labelled_no_more_once_the_job_has_failed(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Assignment):
        def on_rows(self, rows: pa.Table) -> None:
            raise TagstreamError("no more")

    closed = []

    def label(*arguments: Any) -> Iterator[pa.Table]:
        try:
            yield from label_here(*arguments)
        finally:
            closed.append(True)

    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label))
    with pytest.raises(TagstreamError, match="no more"):
        LabelJob(label_request, Failing()).run()
    assert closed == [True]


def test_with_a_limit_no_more_shards_are_labelled_than_it_takes(label_request: LabelRequest) -> None:
    limited = replace(label_request, settings=replace(label_request.settings, limit=3))
    assert LabelJob(limited).run().record.n_shards_committed == 2
    assert LabelJob(limited).run().record.n_shards_committed == 1


class TestShardsThatCannotBeRead:
    """They stay open and fail the job, after it has done the rest."""

    def gone(self, request: LabelRequest, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        """These shards vanish once the source was listed."""

        def label(*arguments: Any) -> Iterator[pa.Table]:
            for name in names:
                (Path(str(request.source)) / name).unlink()
            yield from label_here(*arguments)

        monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label))

    def test_one_costs_itself_alone(self, label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone(label_request, monkeypatch, "00001.tar")
        with pytest.raises(
            StorageError, match=r"^cannot read shard 00001 \(.*No such file .*; what is committed stays"
        ):
            LabelJob(label_request).run()
        (record,) = records_of(label_request)
        assert (record.outcome, record.n_shards_committed, record.message[:23]) == (
            "failed",
            2,
            "cannot read shard 00001",
        )
        write_tars(Path(str(label_request.source)), 1, 2, first=1)
        monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label_here))
        assert LabelJob(label_request).run().record.n_shards_committed == 1

    def test_several_are_counted(self, label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone(label_request, monkeypatch, "00000.tar", "00002.tar")
        with pytest.raises(StorageError, match=r"^2 shards are left open, the first: cannot read shard 00000"):
            LabelJob(label_request).run()
        assert [record.n_shards_committed for record in records_of(label_request)] == [1]

    def test_many_in_a_row_end_the_job_at_once(
        self, label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_tars(Path(str(label_request.source)), 20, 1)
        names = [f"{number:05}.tar" for number in range(1, 15)]
        self.gone(label_request, monkeypatch, *names)
        with pytest.raises(
            StorageError, match=r"^10 shards in a row cannot be read, the last: cannot read shard 00010"
        ):
            LabelJob(label_request).run()
        # The first was whole before, those behind them may be no better.
        assert [record.n_shards_committed for record in records_of(label_request)] == [1]


class TestTimeLimits:
    """Jobs that are to end before all is labelled."""

    class AfterTwo(TimeLimit):
        """Over when the third batch comes; it is asked before the first one, too."""

        n_asked: ClassVar[list[float]] = []

        def is_over(self, elapsed_s: float) -> bool:
            self.n_asked.append(elapsed_s)
            return len(self.n_asked) > 3

    def test_it_ends_the_job_with_what_is_whole_committed_and_the_next_one_goes_on(
        self, label_request: LabelRequest
    ) -> None:
        self.AfterTwo.n_asked.clear()
        stopped = LabelJob(replace(label_request, time_limit=self.AfterTwo(60, "deadline D"))).run()
        assert (stopped.record.outcome, stopped.record.n_shards_committed, stopped.alarm) == ("done", 2, "deadline D")
        (note,) = stopped.notes
        assert note == "the limit of time ended the job (deadline D); 1 shard is left, and the same command goes on"
        rest = LabelJob(replace(label_request, time_limit=TimeLimit(3600, "cost > 1"))).run()
        assert (rest.record.n_shards_committed, rest.alarm, rest.notes) == (1, "", [])

    def test_where_loading_took_all_of_the_time_nothing_is_labelled_and_it_says_that_the_next_job_begins_anew(
        self, label_request: LabelRequest
    ) -> None:
        stopped = LabelJob(replace(label_request, time_limit=TimeLimit(0, "deadline D"))).run()
        assert (stopped.record.outcome, stopped.record.n_shards_committed, stopped.alarm) == ("done", 0, "deadline D")
        assert stopped.notes[-1].startswith("no shard was whole by then, and the next job begins where this one began")
        assert LabelJob(label_request).run().record.n_shards_committed == 3

    def test_it_ends_a_job_whose_batch_takes_too_long(
        self, label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        n_quiet = 0

        class AfterThreeMoments(TimeLimit):
            def is_over(self, elapsed_s: float) -> bool:
                return n_quiet == 3

        def stall(*arguments: Any) -> Iterator[pa.Table]:
            nonlocal n_quiet
            yield next(label_here(*arguments))
            while True:
                n_quiet += 1
                yield NOTHING_YET

        monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(stall))
        stopped = LabelJob(replace(label_request, time_limit=AfterThreeMoments(60, "deadline D"))).run()
        assert (stopped.record.outcome, stopped.record.n_shards_committed, stopped.alarm) == ("done", 1, "deadline D")
        assert n_quiet == 3
