"""Blocks that Ray Data reads, wave after wave: while the blocks of one are labelled, the next one is being read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from ray.data import Dataset

# A reader that is left waits for at most one more block before it ends.
_GRACE_S = 2.0


class BlockReader:
    """Reads datasets in a thread, one after the other, and hands their blocks on.

    Ray Data's driver keeps something of every block it has seen (ray-project/ray#66016), so that a dataset must not be
    too long; and what one keeps is given back with it.

    Args:
        datasets: asked for the next one when the former has been read.
        n_ahead: how many blocks are read ahead of those that were taken.
        on_block: is called in the thread with each block, a `RefBundle` of Ray Data.
        on_end: is called in the thread at the end, with the error if there was one.
    """

    def __init__(
        self,
        datasets: Iterable[Dataset],
        n_ahead: int,
        on_block: Callable[[Any], None],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._datasets, self._on_block, self._on_end = datasets, on_block, on_end
        self._room = threading.Semaphore(n_ahead)
        self._is_left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="blocks", daemon=True)
        self._thread.start()

    def took(self) -> None:
        """Makes room for one more block."""
        self._room.release()

    def close(self) -> None:
        """Ends the reading."""
        self._is_left.set()
        self._room.release()
        self._thread.join(_GRACE_S)

    def _run(self) -> None:
        try:
            for dataset in self._datasets:
                self._read(dataset)
                if self._is_left.is_set():
                    break
        except BaseException as error:
            self._on_end(error)
        else:
            self._on_end(None)

    def _read(self, dataset: Dataset) -> None:
        # Once nobody has the iterator any more, Ray Data stops what still reads.
        for bundle in dataset.iter_internal_ref_bundles():
            self._room.acquire()
            if self._is_left.is_set():
                return
            self._on_block(bundle)
