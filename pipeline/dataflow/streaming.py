"""Shards are read and labelled, label rows stream back: from actors of Ray, or from threads of this process.

In this process all is as on one actor, and so are the rows. What is missing is the wall around it: a decoder that
crashes takes the job with it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.actor.decoded_batches import DecodingRead
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.background import abandon_threads
from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.waves import CALLS_AT_ONCE, MAX_IN_FLIGHT, Stream, Wave, standstill_s
from pipeline.errors import ClusterError, TagstreamError, stood_still, worker_failed
from pipeline.reuse.known_images import KnownImages
from pipeline.reuse.marking import MarkingRead
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches_or_failure

T = TypeVar("T")
U = TypeVar("U")
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
        # What is done comes first: the next wave may wait until rows of the former were taken.
        if in_flight and (
            is_read or len(in_flight) > MAX_IN_FLIGHT or threads.is_sooner(in_flight[0], than=next_batch)
        ):
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

    def is_sooner(self, one: Future[T], than: Future[U]) -> bool:
        """Whether the one is done, as soon as either is. Raises TagstreamError where neither is for too long."""
        both: list[Future[Any]] = [one, than]
        if not wait(both, standstill_s(self._timeout_s), FIRST_COMPLETED).done:
            raise self._stood_still()
        return one.done()

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
