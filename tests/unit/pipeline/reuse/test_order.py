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
    run: Run, shards: list[str], *, others: list[Place] = OTHER, committed: Iterable[str] = (), size: int = 0
) -> ReuseOrder:
    order = ReuseOrder.read(run)
    assert order.write_part(run, order.next_part(others, committed, shards, size))
    return ReuseOrder.read(run)


def seen(order: ReuseOrder, shards: list[str]) -> list[int]:
    return [order.n_seen[order.number_of(shard)] for shard in shards]


def test_other_runs_come_first_then_what_the_run_has_then_its_new_shards(run: Run) -> None:
    order = add(run, ["a/1", "a/2"], committed=["old"])
    own = [Place(None, "r", stem) for stem in ("old", "a%2F1", "a%2F2")]
    assert order.places == [*OTHER, *own]
    assert order.numbers == {place: number for number, place in enumerate(order.places)}


@pytest.mark.parametrize(
    ("size", "expected"), [(0, [2, 3, 4, 5, 6, 7, 8]), (1, [2, 2, 3, 4, 5, 6, 7]), (3, [2, 2, 2, 2, 2, 2, 5])]
)
def test_a_shard_looks_at_all_before_it_or_at_the_groups_before_the_former(
    run: Run, size: int, expected: list[int]
) -> None:
    shards = list("abcdefg")
    assert seen(add(run, shards, size=size), shards) == expected


def test_a_later_part_names_only_what_is_new_and_changes_nothing(run: Run) -> None:
    first = add(run, ["b", "c"], size=4)
    again = add(run, ["a", "b", "c", "d"], others=[*OTHER, Place(None, "third", "y")], committed=["b"], size=0)
    assert again.places[: len(first.places)] == first.places
    assert again.places[len(first.places) :] == [
        Place(None, "third", "y"),
        Place(None, "r", "a"),
        Place(None, "r", "d"),
    ]
    assert seen(again, ["b", "c"]) == seen(first, ["b", "c"])
    assert seen(again, ["a", "d"]) == [5, 6]


def test_shards_that_no_part_names_are_lacking(run: Run) -> None:
    assert ReuseOrder.read(run).lacks(["a"])
    order = add(run, ["a"], committed=["b"])
    assert not order.lacks(["a"])
    # What was committed before there was an order has nothing to look at, until it is labelled again.
    assert order.lacks(["a", "b"])
    assert not add(run, ["b"]).lacks(["a", "b"])


def test_of_two_jobs_that_add_a_part_one_does(run: Run) -> None:
    mine, theirs = ReuseOrder.read(run), ReuseOrder.read(run)
    assert mine.write_part(run, mine.next_part([], [], ["a"], 0))
    assert not theirs.write_part(run, theirs.next_part([], [], ["b"], 0))
    assert ReuseOrder.read(run).lacks(["b"])
