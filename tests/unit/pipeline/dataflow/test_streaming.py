"""Labelling in threads of this process, as it would be on one actor."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.actor import device_thread
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import PoolPlan, plan_pool
from pipeline.dataflow import streaming, waves
from pipeline.dataflow.streaming import open_labelers
from pipeline.dataflow.waves import Wave
from pipeline.errors import ClusterError, StorageError, TagstreamError
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from tests.fixtures.corpus import write_tars
from tests.fixtures.recognizers.instant_labeler import InstantLabeler, InstantRecognizer

N_SHARDS, N_SAMPLES, BATCH_SIZE = 3, 20, 8
SETTINGS = LabelSettings(batch_size=BATCH_SIZE)
# For tests in which nothing moves.
IMPATIENT = replace(SETTINGS, no_progress_timeout_s=1)
POOL = replace(plan_pool([Node(2, 0)], SETTINGS), in_process=True)


def config_of(settings: LabelSettings) -> LabelerConfig:
    return LabelerConfig.of("none", settings, dtype="float32", device="cpu", n_threads=2)


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    return find_source(str(tmp_path / "source")).shards


def stream(
    shards: list[Shard], labeler_class: type[Labeler], pool: PoolPlan = POOL, settings: LabelSettings = SETTINGS
) -> Iterator[pa.Table]:
    """Tables with rows."""
    with open_labelers(pool, config_of(settings), labeler_class, settings) as label:
        yield from (rows for rows in label([Wave(shards)]) if rows.num_rows)


def label_one_by_one(shards: list[Shard]) -> pa.Table:
    labeler = InstantLabeler(config_of(SETTINGS))
    return pa.concat_tables([labeler(batch) for shard in shards for batch in read_batches(shard, BATCH_SIZE)])


def without_seconds(rows: pa.Table) -> pa.Table:
    return rows.drop([name for name in rows.column_names if name.endswith("_s")])


def test_the_rows_are_those_of_one_batch_after_the_other_in_the_order_of_the_shards(
    shards: list[Shard], abandoned: threading.Event
) -> None:
    found = pa.concat_tables(stream(shards, InstantLabeler))
    assert found.num_rows == N_SHARDS * N_SAMPLES
    assert without_seconds(found).equals(without_seconds(label_one_by_one(shards)))
    assert not abandoned.is_set()


def test_two_batches_are_at_work_at_once_and_no_more_are_in_memory_than_a_few(
    shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, n_working, n_at_once, n_read = threading.Lock(), 0, [], []
    are_two = threading.Event()

    class Counting(InstantLabeler):
        def __call__(self, batches: pa.Table) -> pa.Table:
            nonlocal n_working
            with lock:
                n_working += 1
                n_at_once.append(n_working)
                if n_working == 2:
                    are_two.set()
            # However slowly the shards are read, the first one waits for a second; a third may come in a moment.
            assert are_two.wait(60)
            time.sleep(0.02)
            with lock:
                n_working -= 1
            return super().__call__(batches)

    def counting(*arguments: Any) -> Iterator[pa.Table]:
        for batch in read_batches(*arguments):
            n_read.append(1)
            yield batch

    monkeypatch.setattr(streaming, "read_batches_or_failure", counting)
    n_out = 0
    for _ in stream(shards * 4, Counting):
        n_out += 1
        # One is read ahead, a few wait or are at work.
        assert len(n_read) - n_out <= 2 + streaming.MAX_IN_FLIGHT
    assert (n_out, max(n_at_once)) == (4 * N_SHARDS * 3, 2)


def test_a_shard_that_cannot_be_read_costs_its_rows_alone(shards: list[Shard], monkeypatch: pytest.MonkeyPatch) -> None:
    lost = replace(shards[1], url=f"{shards[1].url}.gone")
    found = pa.concat_tables(stream([shards[0], lost, shards[2]], InstantLabeler))
    assert found.filter(pa.compute.less(found["index"], 0))["shard"].to_pylist() == [lost.name]
    assert found.num_rows == 2 * N_SAMPLES + 1


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ValueError("odd"), TagstreamError, "a worker failed: ValueError: odd; run with --verbose for its whole story"),
        (MemoryError(), TagstreamError, "a worker failed: MemoryError; run with --verbose for its whole story"),
        (StorageError("no room"), StorageError, "no room"),
    ],
)
@pytest.mark.parametrize("where", ["load_recognizer", "_sample"])
def test_whatever_a_labeler_raises_is_told_as_if_it_came_from_an_actor(
    shards: list[Shard], where: str, raised: Exception, kind: type[Exception], message: str
) -> None:
    def fail(*_: Any) -> Any:
        raise raised

    failing = type("Failing", (InstantLabeler,), {where: staticmethod(fail)})
    with pytest.raises(TagstreamError) as caught:
        list(stream(shards, failing))
    assert (type(caught.value), str(caught.value)) == (kind, message)


def test_a_model_that_is_stuck_is_told_and_nobody_waits_for_its_thread(
    shards: list[Shard], abandoned: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_thread, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(waves, "_SLACK_S", 60)
    is_stuck, is_over = threading.Event(), threading.Event()

    class Stuck(InstantRecognizer):
        def sample(self, *_: Any, **__: Any) -> Any:
            is_stuck.set()
            is_over.wait(60)

    class StuckLabeler(InstantLabeler):
        @staticmethod
        def load_recognizer(config: LabelerConfig) -> Any:
            return Stuck()

        def __call__(self, batches: pa.Table) -> pa.Table:
            # The second batch, which another thread decodes, does not get to the model before the first.
            if batches["first_index"][0].as_py():
                is_stuck.wait(60)
            return super().__call__(batches)

    with pytest.raises(ClusterError, match=r"is stuck: for 1 s .* on 8 images of shard 00000, from sample 0 on"):
        list(stream(shards, StuckLabeler, settings=IMPATIENT))
    assert abandoned.is_set()
    is_over.set()


def test_a_model_that_never_gets_loaded_is_a_standstill(
    shards: list[Shard], abandoned: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waves, "_SLACK_S", 0)
    monkeypatch.setattr(waves, "_SLACK", 0.1)
    is_over = threading.Event()
    labeler = type("NeverReady", (InstantLabeler,), {"load_recognizer": staticmethod(lambda config: is_over.wait(60))})
    with pytest.raises(ClusterError, match=r"^no worker has finished anything for longer than the 1 s of"):
        list(stream(shards, labeler, settings=IMPATIENT))
    assert abandoned.is_set()
    is_over.set()


@pytest.mark.parametrize(("last_s", "is_left"), [(0.05, False), (60, True)])
def test_a_stream_that_is_closed_drops_what_has_not_begun_and_waits_a_moment_for_what_has(
    shards: list[Shard], abandoned: threading.Event, monkeypatch: pytest.MonkeyPatch, last_s: float, is_left: bool
) -> None:
    is_over, second_began = threading.Event(), threading.Event()
    places, begun = itertools.count(), []

    class Slow(InstantLabeler):
        def __call__(self, batches: pa.Table) -> pa.Table:
            place = next(places)
            begun.append(place)
            if place == 0:
                # However slowly the shards are read, another batch is at work when the first one's rows arrive.
                assert second_began.wait(60)
            else:
                second_began.set()
                is_over.wait(last_s)
            return super().__call__(batches)

    # A moment that is long enough for what ends, on any machine.
    monkeypatch.setattr(streaming, "_GRACE_S", 0.1 if is_left else 30)
    rows = stream(shards * 10, Slow)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    n_at_the_end = len(begun)
    is_over.set()
    assert (abandoned.is_set(), len(begun)) == (is_left, n_at_the_end)
    assert n_at_the_end < 10


def test_while_a_batch_takes_long_a_table_without_rows_comes_again_and_again(
    shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "QUIET_S", 0.01)
    may_go_on = threading.Event()

    class Slow(InstantLabeler):
        def __call__(self, batches: pa.Table) -> pa.Table:
            assert may_go_on.wait(60)
            return super().__call__(batches)

    n_quiet, n_rows = 0, 0
    with open_labelers(POOL, config_of(SETTINGS), Slow, SETTINGS) as label:
        for rows in label([Wave(shards)]):
            n_quiet += not rows.num_rows
            n_rows += rows.num_rows
            if n_quiet == 5:
                may_go_on.set()
    assert (n_quiet >= 5, n_rows) == (True, N_SHARDS * N_SAMPLES)
