"""Shards are read and labelled, label rows stream back: from actors of Ray, or from threads of this process.

In this process all is as on one actor, and so are the rows. What is missing is the wall around it: a decoder that
crashes takes the job with it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.actor.decoded_batches import DecodingRead
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.background import abandon_threads
from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.waves import (
    CALLS_AT_ONCE,
    MAX_IN_FLIGHT,
    NOTHING_YET,
    QUIET_S,
    Stream,
    Wave,
    standstill_s,
)
from pipeline.errors import ClusterError, TagstreamError, stood_still, worker_failed
from pipeline.reuse.known_images import KnownImages
from pipeline.reuse.marking import MarkingRead
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches_or_failure

T = TypeVar("T")
# A batch that is at work when the job is stopped may end meanwhile.
_GRACE_S = 1.0


@contextlib.contextmanager
def open_labelers(
    pool: PoolPlan, config: LabelerConfig, labeler_class: type[Labeler], settings: LabelSettings
) -> Iterator[Stream]:
    """What reads and labels shards, with models that are loaded once; they end with the context.

    Everything raises TagstreamError with one clear sentence for whatever stops the work.
    """
    if pool.in_process:
        with _Threads(settings.no_progress_timeout_s) as threads:
            # The device's metrics are those of an actor, which a node of Ray shows.
            labeler = threads.result(threads.call(lambda: labeler_class(replace(config, job=""))))
            config = labeler.config
            decoding = labeler_class.decoding_read(config, config.n_threads) if config.skip_near_duplicates else None
            yield lambda waves: _stream_in_process(
                threads, labeler, _read(waves, decoding, pool.batch_size, settings.max_sample_bytes)
            )
        return
    # Brings in Ray, which takes seconds to import.
    from pipeline.dataflow.actor_pool import open_actors

    with open_actors(pool, config, labeler_class, settings) as stream:
        yield stream


def _stream_in_process(
    threads: _Threads, labeler: Labeler, batches: Iterator[pa.Table]
) -> Generator[pa.Table, None, None]:
    """As a `Stream`, in the order of the shards. No more than a few batches are in memory."""
    in_flight: deque[Future[pa.Table]] = deque()
    next_batch, is_read = threads.read(batches), False
    while in_flight or not is_read:
        reads_on = not is_read and len(in_flight) <= MAX_IN_FLIGHT
        yield from threads.wait_for_one_of([*islice(in_flight, 1), *([next_batch] if reads_on else [])])
        # What is done comes first: the next wave may wait until rows of the former were taken.
        if in_flight and in_flight[0].done():
            yield threads.result(in_flight.popleft())
            continue
        batch = threads.result(next_batch)
        is_read = batch is None
        if batch is not None:
            in_flight.append(threads.call(labeler, batch))
            next_batch = threads.read(batches)


def _read(
    waves: Iterable[Wave], decoding: DecodingRead | None, batch_size: int, max_sample_bytes: int
) -> Iterator[pa.Table]:
    """Batches of all waves.

    Args:
        decoding: decodes them; None where the labeler does it.
    """
    for wave in waves:
        read: Callable[..., Iterator[pa.Table]] = read_batches_or_failure
        if wave.known is not None:
            read = MarkingRead(partial(_same, wave.known))
        if decoding is not None:
            read = replace(decoding, read=read)
        for shard in wave.shards:
            yield from read(shard, batch_size, max_sample_bytes)


def _same(known: KnownImages) -> KnownImages:
    return known


class _Threads:
    """One thread that reads and some that label. At the context's end all of them end, or are abandoned.

    Args:
        timeout_s: how long a labeler may take for a batch before it says itself that it is stuck.
    """

    def __init__(self, timeout_s: int) -> None:
        self._timeout_s = timeout_s
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._calling = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="label")
        self._started: list[Future[object]] = []

    def read(self, batches: Iterator[pa.Table]) -> Future[pa.Table | None]:
        """The next batch to come; None is the end."""
        return self._noted(self._reading.submit(next, batches, None))

    def call(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """What the labeler, or the making of it, is going to return."""
        return self._noted(self._calling.submit(work, *arguments))

    def wait_for_one_of(self, futures: Sequence[Future[Any]]) -> Iterator[pa.Table]:
        """Yields `NOTHING_YET` until one of them is done. Raises TagstreamError where none is for too long."""
        quiet_s, most_s = 0.0, standstill_s(self._timeout_s)
        while quiet_s < most_s:
            moment_s = min(QUIET_S, most_s - quiet_s)
            if wait(futures, moment_s, FIRST_COMPLETED).done:
                return
            quiet_s += moment_s
            yield NOTHING_YET
        raise self._stood_still()

    def result(self, future: Future[T]) -> T:
        """What comes of the work. Raises TagstreamError with one clear sentence where nothing does."""
        if wait([future], standstill_s(self._timeout_s)).not_done:
            raise self._stood_still()
        try:
            return future.result()
        except TagstreamError:
            raise
        except Exception as error:
            last_line = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
            raise worker_failed(last_line) from error

    def _stood_still(self) -> ClusterError:
        return stood_still("reading or labelling in this process", self._timeout_s)

    def _noted(self, future: Future[T]) -> Future[T]:
        self._started = [former for former in self._started if not former.done()]
        self._started.append(future)  # type: ignore[arg-type]
        return future

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *_: object) -> None:
        """Wherever the work is left early, what has not begun is dropped, and what has is given a moment."""
        for executor in (self._reading, self._calling):
            executor.shutdown(wait=False, cancel_futures=True)
        if wait([future for future in self._started if not future.done()], _GRACE_S).not_done:
            abandon_threads()
