"""How blocks go to actors; Ray's part is played by threads."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.actor.labeler import LabelerConfig
from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.dataflow import kept_actors
from pipeline.dataflow.kept_actors import KeptActors
from pipeline.errors import ClusterError
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.recognizers.instant_labeler import InstantLabeler

# How long to wait for what comes at once, on any machine.
LONG_S = 60
SETTINGS = LabelSettings(batch_size=4, actors=1)
CONFIG = LabelerConfig.of("none", SETTINGS, dtype="float32", device="cpu", n_threads=1)


class Result:
    """What Ray gives for a call."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def future(self) -> Future[Any]:
        return self._future


@dataclass
class Cluster:
    """Actors that work in threads, one for each call."""

    work: Callable[[str], pa.Table]
    nodes: list[str] = field(default_factory=lambda: ["n"] * 9)
    """Where the actors come to live, in the order of their start."""
    is_ready: threading.Event = field(default_factory=threading.Event)
    given: list[tuple[int, str]] = field(default_factory=list)
    """Which actor got which block."""
    killed: list[Any] = field(default_factory=list)
    n_actors: int = 0
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(32))

    def remote(self, config: LabelerConfig) -> FakeActor:
        self.n_actors += 1
        return FakeActor(self, self.n_actors - 1)

    def kill(self, handle: Any, no_restart: bool) -> None:
        self.killed.append(handle)


@dataclass(eq=False)
class FakeActor:
    cluster: Cluster
    number: int

    @property
    def find_node(self) -> Call:
        def find() -> str:
            assert self.cluster.is_ready.wait(LONG_S)
            return self.cluster.nodes[self.number]

        return Call(self, find)

    @property
    def label(self) -> Call:
        def label(block: str, first: int, n_rows: int) -> pa.Table:
            """A block is a text, and each of its letters a batch."""
            self.cluster.given.append((self.number, block[first : first + n_rows]))
            return self.cluster.work(block[first : first + n_rows])

        return Call(self, label)


@dataclass
class Call:
    actor: FakeActor
    work: Callable[..., Any]

    def remote(self, *arguments: Any) -> Result:
        return Result(self.actor.cluster.threads.submit(self.work, *arguments))


@dataclass
class Bundle:
    """A block of Ray Data: its reference, and the node that has it."""

    block: str
    node: str = ""

    @property
    def blocks(self) -> list[Any]:
        return [SimpleNamespace(ref=self.block, metadata=SimpleNamespace(num_rows=len(self.block)))]

    def get_preferred_object_locations(self) -> dict[str, int]:
        return {self.node: 1}


@dataclass
class Blocks:
    bundles: list[Bundle]

    def iter_internal_ref_bundles(self) -> Iterator[Bundle]:
        yield from self.bundles


def blocks(names: str) -> Any:
    return Blocks([Bundle(name) for name in names])


def named(block: str) -> pa.Table:
    return pa.table({"block": list(block)})


@pytest.fixture
def make_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def make(work: Callable[[str], pa.Table] = named, is_ready: bool = True, **options: Any) -> Cluster:
        cluster = Cluster(work, **options)
        if is_ready:
            cluster.is_ready.set()
        monkeypatch.setattr(kept_actors, "_actor_class", lambda *_: cluster)
        monkeypatch.setattr(kept_actors.ray, "kill", cluster.kill)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.is_ready.set()
        cluster.threads.shutdown()


def actors_of(n_actors: int = 1, min_actors: int = 1, timeout_s: float = LONG_S) -> KeptActors:
    pool = replace(plan_pool([Node(2, 0)], SETTINGS), n_actors=n_actors, min_actors=min_actors)
    return KeptActors(pool, CONFIG, InstantLabeler, timeout_s, 7)


def label(actors: KeptActors, *datasets: Any) -> list[str]:
    return sorted(name for rows in actors.label(datasets) if rows.num_rows for name in rows["block"].to_pylist())


def test_every_block_is_labelled_and_the_actors_end_with_the_context(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    with actors_of(2, 2) as actors:
        assert label(actors, blocks("abcdefghijklm"), blocks("nop")) == list("abcdefghijklmnop")
        assert not cluster.killed
    assert len(cluster.killed) == cluster.n_actors == 2


def test_a_second_stream_is_labelled_by_the_same_actors(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    with actors_of(2, 2) as actors:
        assert [label(actors, blocks("ab")), label(actors, blocks("cd"))] == [["a", "b"], ["c", "d"]]
    assert cluster.n_actors == 2


class Together:
    """Work that waits until so many calls are at work, and a moment more, in which others would begin."""

    def __init__(self, n_calls: int) -> None:
        self.most = 0
        self._n_calls, self._n_running = n_calls, 0
        self._lock, self._may_go_on = threading.Lock(), threading.Event()

    def __call__(self, block: str) -> pa.Table:
        with self._lock:
            self._n_running += 1
            self.most = max(self.most, self._n_running)
            if self._n_running == self._n_calls:
                threading.Timer(0.1, self._may_go_on.set).start()
        assert self._may_go_on.wait(LONG_S)
        with self._lock:
            self._n_running -= 1
        return named(block)


def test_an_actor_that_is_ready_between_two_streams_works_in_the_second(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(is_ready=False)
    with actors_of(2, 2) as actors:
        assert label(actors) == []
        cluster.is_ready.set()
        # Of eight calls at once an actor has four.
        cluster.work = Together(8)
        assert label(actors, blocks("abcdefgh")) == list("abcdefgh")
    assert cluster.n_actors == 2


def test_an_actor_has_four_blocks_at_once_and_no_more(make_cluster: Callable[..., Cluster]) -> None:
    work = Together(4)
    make_cluster(work)
    with actors_of() as actors:
        assert label(actors, blocks("abcdefgh")) == list("abcdefgh")
    assert work.most == 4


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_pool_grows_while_none_has_room_up_to_its_bound(make_cluster: Callable[..., Cluster], most: int) -> None:
    cluster = make_cluster(Together(4 * most))
    with actors_of(most) as actors:
        assert len(label(actors, blocks("abcdefghijklmnopqrstuvwxyz"))) == 26
    assert cluster.n_actors == most


def test_a_pool_whose_actors_keep_up_does_not_grow(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    with actors_of(3) as actors:
        assert label(actors, blocks("abc")) == list("abc")
    assert cluster.n_actors == 1


def test_blocks_go_to_the_actor_of_their_node_where_both_have_as_few(make_cluster: Callable[..., Cluster]) -> None:
    # Eight calls are at work at once when both actors are there.
    cluster = make_cluster(Together(8), nodes=["here", "there"])
    with actors_of(2, 2) as actors:
        label(actors, blocks("stuvwxyz"))
        cluster.given.clear()
        label(actors, Blocks([Bundle("a", "there")]))
        label(actors, Blocks([Bundle("b", "here")]))
    assert cluster.given == [(1, "a"), (0, "b")]


def test_the_batches_of_the_last_block_are_spread_over_the_actors(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(Together(8))
    with actors_of(2, 2) as actors:
        assert label(actors, blocks("xy"), Blocks([Bundle("abcdef")])) == list("abcdefxy")
    n_each = Counter(actor for actor, _ in cluster.given)
    assert n_each == {0: 4, 1: 4}


def test_of_a_block_of_many_batches_several_go_with_one_call(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    with actors_of() as actors:
        assert len(label(actors, Blocks([Bundle("ab" * 20)]))) == 40
    assert [len(given) for _, given in cluster.given] == [5] * 8


def test_what_an_actor_raises_ends_the_work(make_cluster: Callable[..., Cluster]) -> None:
    def fail(block: str) -> pa.Table:
        raise ClusterError("a labelling actor is stuck")

    cluster = make_cluster(fail)
    with pytest.raises(ClusterError, match="is stuck"), actors_of() as actors:
        label(actors, blocks("a"))
    assert len(cluster.killed) == 1


def test_where_nothing_happens_the_work_that_does_not_end_is_named(make_cluster: Callable[..., Cluster]) -> None:
    make_cluster(is_ready=False)
    expected = r"7 s of no_progress_timeout_s; unfinished: the start of 2 of 2 actors \(InstantLabeler\)"
    with pytest.raises(ClusterError, match=expected), actors_of(2, 2, timeout_s=0.3) as actors:
        label(actors, blocks("a"))


def named_after(event: threading.Event) -> Callable[[str], pa.Table]:
    """Work that is not done before the event."""

    def work(block: str) -> pa.Table:
        assert event.wait(LONG_S)
        return named(block)

    return work


def test_while_nothing_comes_a_table_without_rows_does_and_what_comes_in_the_end_is_whole(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_actors, "QUIET_S", 0.01)
    may_go_on = threading.Event()
    make_cluster(named_after(may_go_on))
    with actors_of(timeout_s=60) as actors:
        n_quiet, names = 0, []
        for rows in actors.label([blocks("abc")]):
            n_quiet += not rows.num_rows
            names += rows["block"].to_pylist() if rows.num_rows else []
            if n_quiet == 5:
                may_go_on.set()
    assert (n_quiet >= 5, sorted(names)) == (True, list("abc"))


def test_time_in_which_nobody_takes_the_rows_is_no_standstill(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_actors, "QUIET_S", 0.01)
    may_go_on = threading.Event()
    make_cluster(named_after(may_go_on))
    with actors_of(timeout_s=60) as actors:
        stream = actors.label([blocks("a")])
        assert not next(stream).num_rows
        # Longer than nothing may come, as where a store does not answer.
        later_s = time.monotonic() + 1000
        with monkeypatch.context() as later:
            later.setattr(time, "monotonic", lambda: later_s)
            assert not next(stream).num_rows
        may_go_on.set()
        assert [name for rows in stream if rows.num_rows for name in rows["block"].to_pylist()] == ["a"]
