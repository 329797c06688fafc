"""The order in which a run reuses labels, and its parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.reuse.order import Place, ReuseOrder
from pipeline.store.run import Run
from pipeline.store.store import Store

OTHER = [Place(None, "other", "x"), Place("s3://elsewhere", "other", "x")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Store(str(tmp_path / "store")).run("r")


def add(
    run: Run, shards: list[str], n_before: list[int], *, others: list[Place] = OTHER, committed: Iterable[str] = ()
) -> ReuseOrder:
    order = ReuseOrder.read(run)
    assert order.write_part(run, order.next_part(others, committed, shards, n_before))
    return ReuseOrder.read(run)


def seen(order: ReuseOrder, shards: list[str]) -> list[int]:
    return [order.n_seen[order.number_of(shard)] for shard in shards]


def test_other_runs_come_first_then_what_the_run_has_then_its_new_shards(run: Run) -> None:
    order = add(run, ["a/1", "a/2"], [0, 1], committed=["old"])
    own = [Place(None, "r", stem) for stem in ("old", "a%2F1", "a%2F2")]
    assert order.places == [*OTHER, *own]
    assert order.numbers == {place: number for number, place in enumerate(order.places)}


def test_a_shard_looks_at_all_that_come_before_its_part_and_at_some_of_its_part(run: Run) -> None:
    order = add(run, ["a", "b", "c"], [0, 0, 2], committed=["old"])
    assert seen(order, ["a", "b", "c"]) == [3, 3, 5]


def test_a_later_part_names_what_is_new_and_changes_nothing(run: Run) -> None:
    first = add(run, ["b", "c"], [0, 0])
    again = add(run, ["a", "d"], [0, 1], others=[*OTHER, Place(None, "third", "y")], committed=["b"])
    assert again.places[: len(first.places)] == first.places
    new = [Place(None, "third", "y"), Place(None, "r", "a"), Place(None, "r", "d")]
    assert again.places[len(first.places) :] == new
    assert seen(again, ["b", "c"]) == seen(first, ["b", "c"])
    assert seen(again, ["a", "d"]) == [5, 6]


def test_what_was_committed_before_there_was_an_order_is_named_once_it_is_labelled_again(run: Run) -> None:
    assert not ReuseOrder.read(run).names("a")
    order = add(run, ["a"], [0], committed=["b"])
    assert (order.names("a"), order.names("b")) == (True, False)
    assert add(run, ["b"], [0]).names("b")


def test_of_two_jobs_that_add_a_part_one_does(run: Run) -> None:
    mine, theirs = ReuseOrder.read(run), ReuseOrder.read(run)
    assert mine.write_part(run, mine.next_part([], [], ["a"], [0]))
    assert not theirs.write_part(run, theirs.next_part([], [], ["b"], [0]))
    assert not ReuseOrder.read(run).names("b")
