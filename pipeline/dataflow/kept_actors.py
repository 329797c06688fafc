"""Labelling actors that live as long as a job, whatever number of waves its shards are read in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset
from ray.exceptions import RayError

from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.block_reader import BlockReader
from pipeline.dataflow.ray_errors import as_sentence
from pipeline.dataflow.waves import CALLS_AT_ONCE, MAX_IN_FLIGHT, NOTHING_YET, QUIET_S
from pipeline.errors import stood_still

# A call is one batch; of a block of many small ones, so that calls do not cost more than their work, an eighth.
_CALLS_A_BLOCK = 8
Event = Callable[[], pa.Table | None]


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a block, each a batch."""

    block: Any
    """Ray's reference to the block."""
    first: int
    n_rows: int


@dataclass(slots=True, eq=False)
class _Actor:
    handle: Any
    node: str = ""
    """Where it lives; empty until its model is loaded."""
    n_in_flight: int = 0
    """Calls that it was given."""
    backlog: deque[_Part] = field(default_factory=deque)
    """What it is given next, unless others have nothing to do."""

    @property
    def n_left(self) -> int:
        return self.n_in_flight + len(self.backlog)

    @property
    def has_room(self) -> bool:
        return bool(self.node) and self.n_left < MAX_IN_FLIGHT


class KeptActors:
    """Actors that are made with the first block to label and end with the context.

    They are restarted where they die, and what they worked on is done again.

    Args:
        timeout_s: how long nothing may happen.
    """

    def __init__(
        self, pool: PoolPlan, config: LabelerConfig, labeler_class: type[Labeler], timeout_s: float, told_s: int
    ) -> None:
        self._pool, self._config, self._class = pool, config, labeler_class
        self._timeout_s, self._told_s = timeout_s, told_s
        self._actors: list[_Actor] = []
        # What happened in the threads that Ray calls back in, and in the one that reads.
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._blocks: deque[Any] = deque()
        self._is_read = False
        # How long nothing has come while it was waited for.
        self._quiet_s = 0.0

    def __enter__(self) -> KeptActors:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor.handle, no_restart=True)
        self._actors = []

    def label(self, datasets: Iterable[Dataset]) -> Generator[pa.Table, None, None]:
        """Rows of the datasets' batches, as a `Stream` has them.

        Args:
            datasets: of `BATCHES` or `DECODED_BATCHES`; the next one is asked for while the former is labelled.

        Raises TagstreamError where an actor fails, the reading does, or nothing happens for too long.
        """
        self._is_read, self._blocks, self._events, self._quiet_s = False, deque(), SimpleQueue(), 0.0
        reader = BlockReader(datasets, max(2, self._pool.n_actors), self._arrive, self._end)
        try:
            # What they answered during a former stream, or between two, is lost with that one's events.
            for actor in self._actors:
                if not actor.node:
                    self._ask_for_node(actor)
            self._start(self._pool.min_actors - len(self._actors))
            while not self._is_done:
                rows = self._next_event()()
                self._hand_out(reader)
                if rows is not None:
                    yield rows
        except RayError as error:
            raise as_sentence(error) from error
        finally:
            reader.close()

    @property
    def _is_done(self) -> bool:
        return self._is_read and not self._blocks and not any(actor.n_left for actor in self._actors)

    def _next_event(self) -> Event:
        """What happens next; where nothing does for a moment, an event that says so."""
        moment_s = min(QUIET_S, self._timeout_s - self._quiet_s)
        try:
            event = self._events.get(timeout=moment_s)
        except Empty:
            self._quiet_s += moment_s
            if self._quiet_s >= self._timeout_s:
                raise stood_still(self._unfinished(), self._told_s) from None
            return lambda: NOTHING_YET
        self._quiet_s = 0.0
        return event

    def _unfinished(self) -> str:
        name, n_starting = self._class.__name__, sum(not actor.node for actor in self._actors)
        n_left = sum(actor.n_left for actor in self._actors)
        parts = [f"the start of {n_starting} of {len(self._actors)} actors ({name})"] if n_starting else []
        parts += [f"{n_left} calls of {name}"] if n_left else []
        parts += [] if self._is_read else ["ReadShards"]
        return ", ".join(parts)

    def _start(self, n_actors: int) -> None:
        for _ in range(n_actors):
            actor = _Actor(_actor_class(self._class, self._pool).remote(self._config))
            self._actors.append(actor)
            self._ask_for_node(actor)

    def _ask_for_node(self, actor: _Actor) -> None:
        self._tell(actor.handle.find_node.remote(), partial(self._welcome, actor))

    def _tell(self, result: Any, then: Callable[[Any], pa.Table | None]) -> None:
        """Makes an event of a result that comes; an error that comes in its place is raised in the event's turn."""
        events = self._events
        result.future().add_done_callback(lambda future: events.put(lambda: then(future.result())))

    def _welcome(self, actor: _Actor, node: str) -> None:
        actor.node = node

    def _arrive(self, bundle: Any) -> None:
        self._events.put(lambda: self._blocks.append(bundle))

    def _end(self, error: BaseException | None) -> None:
        def end() -> None:
            if error is not None:
                raise error
            self._is_read = True

        self._events.put(end)

    def _hand_out(self, reader: BlockReader) -> None:
        """Gives blocks to actors that have room, the nearest ones first; where none has, the pool grows.

        A block stays with one actor, so that it travels to one node. Where there are no more blocks, actors without
        work take over what waits for others.
        """
        while self._blocks:
            free = [actor for actor in self._actors if actor.has_room]
            if not free:
                self._grow()
                break
            bundle = self._blocks.popleft()
            near = bundle.get_preferred_object_locations() if len(free) > 1 else {}
            actor = min(free, key=lambda actor: (actor.n_left, -near.get(actor.node, 0)))
            actor.backlog += [part for entry in bundle.blocks for part in _cut(entry.ref, entry.metadata.num_rows)]
            self._feed(actor)
            reader.took()
        for actor in self._actors:
            self._feed(actor)
        while not self._blocks and (pair := self._find_uneven()) is not None:
            idle, laden = pair
            idle.backlog.append(laden.backlog.pop())
            self._feed(idle)

    def _feed(self, actor: _Actor) -> None:
        while actor.node and actor.backlog and actor.n_in_flight < MAX_IN_FLIGHT:
            part = actor.backlog.popleft()
            actor.n_in_flight += 1
            result = actor.handle.label.remote(part.block, part.first, part.n_rows)
            self._tell(result, partial(self._give_back, actor))

    def _find_uneven(self) -> tuple[_Actor, _Actor] | None:
        """An actor that has room and the one with the longest backlog, if it has any."""
        free = [actor for actor in self._actors if actor.has_room]
        laden = max(self._actors, key=lambda actor: len(actor.backlog), default=None)
        if not free or laden is None or not laden.backlog:
            return None
        return min(free, key=lambda actor: actor.n_left), laden

    def _grow(self) -> None:
        """Starts actors as long as the pool may have more, no more at once than there are."""
        n_ready = sum(bool(actor.node) for actor in self._actors)
        n_starting = len(self._actors) - n_ready
        self._start(min(self._pool.n_actors - len(self._actors), max(1, n_ready) - n_starting))

    def _give_back(self, actor: _Actor, rows: pa.Table) -> pa.Table:
        actor.n_in_flight -= 1
        return rows


def _cut(block: Any, n_rows: int) -> list[_Part]:
    """A block's rows as they are given to actors."""
    step = max(1, n_rows // _CALLS_A_BLOCK)
    return [_Part(block, first, min(step, n_rows - first)) for first in range(0, n_rows, step)]


def _actor_class(labeler_class: type[Labeler], pool: PoolPlan) -> Any:
    """The class as Ray's actors, with what they reserve."""

    class Actor(labeler_class):  # type: ignore[valid-type,misc]
        def label(self, batches: pa.Table, first: int, n_rows: int) -> pa.Table:
            return self(batches.slice(first, n_rows))

        def find_node(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    # By this name Ray's processes are called.
    Actor.__name__ = Actor.__qualname__ = labeler_class.__name__
    return ray.remote(
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor or None,
        resources=dict(pool.resources) or None,
        label_selector=dict(pool.label_selector) or None,
        max_concurrency=CALLS_AT_ONCE,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy="SPREAD",
    )(Actor)
