"""Writes whole shards into a run, in the background of the labelling."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass

import pyarrow as pa

from pipeline.labelling.assembly import WholeShard
from pipeline.storage.files import Filesystem, is_local
from pipeline.store.ledger import LedgerWriter
from pipeline.store.ownership import CommittedShard
from pipeline.store.run import Run

# On object stores commits wait for answers.
_LOCAL_THREADS, _REMOTE_THREADS = 8, 32


def count_threads(filesystem: Filesystem) -> int:
    """How many shards are committed at a time."""
    return _LOCAL_THREADS if is_local(filesystem) else _REMOTE_THREADS


@dataclass(frozen=True, slots=True)
class Commit:
    """What became of a whole shard."""

    shard: WholeShard
    """The shard as its rows came back."""
    is_written: bool
    """False where the store stays as it was: another job committed the shard first, or its source changed."""
    seconds: float
    """Seconds that completing and writing it took."""


class Committer:
    """Commits whole shards of a run in background threads.

    No more whole shards are in memory than there are threads to write them, and the first failure stops the labelling.

    Args:
        run: the run that the shards are committed to.
        fingerprint: the run's fingerprint, for the shards' metadata.
        replaced: former commits of the shards that are labelled again, by shard name.
        complete: makes what is committed of a shard that came back; None leaves the store as it is. It is called in a
            background thread, with the shard's former commit if it has one.
        on_commit: called in a background thread after each shard.
        listed_of: of each of the run's lists what is written of a shard, as `Run.commit` takes it.
        above: the generation that a shard's commit has to be above, as `Run.commit` takes it.
        fill: adds what did not come back with the shard: labels of other images.
        on_end: called with the name of each shard when nobody works on it any more, and whether that went well.
    """

    def __init__(
        self,
        run: Run,
        fingerprint: str,
        replaced: Mapping[str, CommittedShard],
        complete: Callable[[WholeShard, CommittedShard | None], WholeShard | None],
        on_commit: Callable[[Commit], None],
        *,
        listed_of: Callable[[WholeShard], Mapping[str, pa.Table | None]] = lambda shard: shard.listed,
        above: Callable[[str], int] = lambda shard: -1,
        fill: Callable[[WholeShard], WholeShard] | None = None,
        on_end: Callable[[str, bool], None] | None = None,
    ) -> None:
        self._run = run
        self._fingerprint = fingerprint
        self._replaced = replaced
        self._complete = complete
        self._on_commit = on_commit
        self._listed_of = listed_of
        self._above = above
        self._fill = fill
        self._on_end = on_end
        self._n_threads = count_threads(run.filesystem)
        self._ledger = LedgerWriter(run.filesystem, run.layout)
        self._lock = threading.Lock()
        self._n_committing = 0

    @property
    def n_committing(self) -> int:
        """How many whole shards are being written or wait for it."""
        return self._n_committing

    def commit_all(self, arrivals: Iterable[Sequence[WholeShard]]) -> int:
        """Commits shards as they become whole, and waits for all of them.

        Args:
            arrivals: the shards that became whole with each arrival of rows, often none. After each arrival failures
                are looked for, so that labelling stops soon.

        Returns: how many shards there were. Raises the first failure of a commit.
        """
        n_shards = 0
        running: set[Future[None]] = set()
        try:
            with ThreadPoolExecutor(self._n_threads, thread_name_prefix="commit") as threads:
                for shards in arrivals:
                    n_shards += len(shards)
                    running.update(self._submit(threads, shard) for shard in shards)
                    running = _wait_for_room(running, self._n_threads)
                for future in running:
                    future.result()
        finally:
            self._ledger.flush()
        return n_shards

    def _submit(self, threads: ThreadPoolExecutor, shard: WholeShard) -> Future[None]:
        self._count(1)
        future = threads.submit(self._commit, shard)
        future.add_done_callback(lambda ended: self._end(shard.name, ended))
        return future

    def _end(self, shard: str, ended: Future[None]) -> None:
        self._count(-1)
        if self._on_end:
            self._on_end(shard, ended.exception() is None)

    def _count(self, change: int) -> None:
        with self._lock:
            self._n_committing += change

    def _commit(self, shard: WholeShard) -> None:
        started = time.perf_counter()
        former = self._replaced.get(shard.name)
        shard = self._fill(shard) if self._fill else shard
        complete = self._complete(shard, former)
        is_written = complete is not None and self._write(complete, former)
        self._on_commit(Commit(shard, is_written, time.perf_counter() - started))

    def _write(self, shard: WholeShard, former: CommittedShard | None) -> bool:
        metadata = {
            "fingerprint": self._fingerprint,
            "source_size": shard.source_size,
            "source_etag": shard.source_etag,
        }
        return self._run.commit(
            shard.name,
            shard.images,
            shard.labels,
            metadata,
            listed=self._listed_of(shard),
            replaces=former,
            above=self._above(shard.name),
            ledger=self._ledger,
        )


def _wait_for_room(running: set[Future[None]], n_threads: int) -> set[Future[None]]:
    """Waits while there is more work than threads. Returns: the work that is not done. Raises the first failure."""
    while len(running) > n_threads or any(future.done() for future in running):
        done, running = wait_for(running, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
    return running
