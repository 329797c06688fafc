"""Blocks that are read ahead, dataset after dataset."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from pipeline.dataflow.block_reader import BlockReader

# How long to wait for what comes at once, on any machine.
LONG_S = 60


class FakeDataset:
    """What the reader needs of one; notes what was taken of it."""

    def __init__(self, blocks: Iterable[str], taken: list[str]) -> None:
        self._blocks, self._taken = blocks, taken

    def iter_internal_ref_bundles(self) -> Iterator[str]:
        for block in self._blocks:
            self._taken.append(block)
            yield block


def reader_of(datasets: Iterable[Any], n_ahead: int) -> tuple[BlockReader, SimpleQueue[Any]]:
    arrived: SimpleQueue[Any] = SimpleQueue()
    return BlockReader(datasets, n_ahead, arrived.put, arrived.put), arrived


def test_the_blocks_of_all_datasets_come_in_their_order_and_then_the_end() -> None:
    taken: list[str] = []
    reader, arrived = reader_of((FakeDataset(blocks, taken) for blocks in ("ab", "", "c")), 9)
    assert [arrived.get(timeout=LONG_S) for _ in range(4)] == ["a", "b", "c", None]
    reader.close()


def test_no_more_is_read_ahead_than_there_is_room_for() -> None:
    taken: list[str] = []
    reader, arrived = reader_of([FakeDataset("abcdef", taken)], 2)
    assert [arrived.get(timeout=LONG_S) for _ in range(2)] == ["a", "b"]
    # One more is taken, and waits for room.
    give_up = time.monotonic() + LONG_S
    while len(taken) < 3:
        assert time.monotonic() < give_up
        time.sleep(0.001)
    time.sleep(0.1)
    assert (arrived.empty(), len(taken)) == (True, 3)
    reader.took()
    assert arrived.get(timeout=LONG_S) == "c"
    reader.close()


def test_the_next_dataset_is_asked_for_once_the_former_is_read() -> None:
    asked = threading.Event()

    def datasets() -> Iterator[FakeDataset]:
        yield FakeDataset("a", [])
        asked.set()
        yield FakeDataset("b", [])

    reader, _ = reader_of(datasets(), 1)
    # Nobody has taken the first block yet.
    assert asked.wait(LONG_S)
    reader.close()


def test_an_error_is_the_end() -> None:
    def fail() -> Iterator[str]:
        yield "a"
        raise ValueError("broken")

    reader, arrived = reader_of([FakeDataset(fail(), [])], 9)
    assert arrived.get(timeout=LONG_S) == "a"
    assert isinstance(arrived.get(timeout=LONG_S), ValueError)
    reader.close()


@pytest.mark.parametrize("n_ahead", [1, 3])
def test_a_reader_that_is_left_ends_and_hands_nothing_on(n_ahead: int) -> None:
    taken: list[str] = []
    reader, arrived = reader_of([FakeDataset("abcdefgh", taken), FakeDataset("i", taken)], n_ahead)
    for _ in range(n_ahead):
        arrived.get(timeout=LONG_S)
    reader.close()
    assert arrived.get(timeout=LONG_S) is None
    assert len(taken) == n_ahead + 1
