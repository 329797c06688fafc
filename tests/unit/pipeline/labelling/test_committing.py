"""Whole shards, committed in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import TagstreamError
from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.committing import Commit, Committer, count_threads
from pipeline.store.ownership import CommittedShard
from pipeline.store.run import Run
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_shard, run_record, shard_tables

RUN, FINGERPRINT = "r", "0a1b"
# How long to wait for what comes at once, on any machine.
LONG_S = 60
Complete = Callable[[WholeShard, CommittedShard | None], WholeShard | None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    store = Store(str(tmp_path))
    store.create_run(run_record(RUN, fingerprint=FINGERPRINT))
    return store.run(RUN)


def whole(name: str, n_rows: int = 2) -> WholeShard:
    images, labels = shard_tables(name, n_rows)
    return WholeShard(name, images, labels, 7, "etag", {"read": 0.0, "decode": 0.0, "infer": 0.0})


def committed(run: Run) -> Mapping[str, CommittedShard]:
    return run.committed().by_stem


def n_stored_rows(run: Run, name: str) -> tuple[int, int]:
    """How many images and labels a shard has in the store."""
    images, labels = run.read_shard(name, committed(run)[name])
    return images.num_rows, labels.num_rows


def as_it_came(shard: WholeShard, former: CommittedShard | None) -> WholeShard:
    return shard


def commit_all(
    run: Run, arrivals: Sequence[Sequence[WholeShard]], complete: Complete = as_it_came
) -> tuple[int, dict[str, Commit]]:
    """How many shards there were, and what became of each."""
    commits: dict[str, Commit] = {}

    def keep(commit: Commit) -> None:
        commits[commit.shard.name] = commit

    committer = Committer(run, FINGERPRINT, committed(run), complete, keep)
    return committer.commit_all(arrivals), commits


def wait_until(is_true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LONG_S
    while not is_true():
        assert time.monotonic() < give_up, "it never came to be"
        time.sleep(0.001)


def test_every_shard_is_committed_with_the_fingerprint_and_the_version_of_its_source(run: Run) -> None:
    n_shards, commits = commit_all(run, [[], [whole("a"), whole("b", 3)], [], [whole("c")]])
    assert n_shards == 3
    assert {name: commit.is_written for name, commit in commits.items()} == {"a": True, "b": True, "c": True}
    assert n_stored_rows(run, "b") == (3, 6)
    described = [pq.read_metadata(path).metadata for path in Path(run.store_url).glob("images/run=r/*.parquet")]
    assert [
        [values[f"tagstream.{name}".encode()] for name in ("fingerprint", "source_size", "source_etag")]
        for values in described
    ] == [[b"0a1b", b"7", b"etag"]] * 3


def test_what_is_committed_is_what_the_shard_was_completed_to(run: Run) -> None:
    _, commits = commit_all(run, [[whole("a", 5)]], lambda shard, _: whole(shard.name, 2))
    assert (n_stored_rows(run, "a"), commits["a"].shard.images.num_rows) == ((2, 4), 5)


def test_a_shard_that_cannot_be_completed_is_left_as_it_was(run: Run) -> None:
    n_shards, commits = commit_all(run, [[whole("a"), whole("b")]], lambda shard, _: None)
    assert (n_shards, [commits[name].is_written for name in "ab"]) == (2, [False, False])
    assert committed(run) == {}


def test_a_shard_that_is_labelled_again_replaces_its_former_commit(run: Run) -> None:
    commit_shard(Store(run.store_url), RUN, "a", n_rows=1)
    formers = []

    def complete(shard: WholeShard, former: CommittedShard | None) -> WholeShard:
        formers.append(former)
        return shard

    _, commits = commit_all(run, [[whole("a", 4), whole("b")]], complete)
    assert (n_stored_rows(run, "a"), commits["a"].is_written) == ((4, 8), True)
    assert sorted(former is None for former in formers) == [False, True]


def test_a_shard_that_another_job_committed_meanwhile_is_not_written(run: Run) -> None:
    def complete(shard: WholeShard, former: CommittedShard | None) -> WholeShard:
        commit_shard(Store(run.store_url), RUN, shard.name, n_rows=1)
        return shard

    _, commits = commit_all(run, [[whole("a", 4)]], complete)
    assert (n_stored_rows(run, "a"), commits["a"].is_written) == ((1, 2), False)


def test_the_seconds_of_a_commit_count_completing_and_writing(run: Run) -> None:
    def complete(shard: WholeShard, former: CommittedShard | None) -> WholeShard:
        time.sleep(0.1)
        return shard

    started = time.perf_counter()
    _, commits = commit_all(run, [[whole("a")]], complete)
    assert 0.1 <= commits["a"].seconds <= time.perf_counter() - started


def test_shards_that_are_being_written_are_counted_until_each_is(run: Run) -> None:
    may_go_on = {name: threading.Event() for name in "abc"}
    seen = []

    def complete(shard: WholeShard, former: CommittedShard | None) -> WholeShard:
        assert may_go_on[shard.name].wait(LONG_S)
        return shard

    def arrivals() -> Iterator[list[WholeShard]]:
        yield from [[whole("a")], [whole("b"), whole("c")]]
        # What a watcher sees while the last are written, when no more rows come.
        for event in may_go_on.values():
            seen.append(committer.n_committing)
            event.set()
            wait_until(lambda: committer.n_committing < seen[-1])

    committer = Committer(run, FINGERPRINT, {}, complete, lambda _: None)
    assert committer.commit_all(arrivals()) == 3
    assert (seen, committer.n_committing) == ([3, 2, 1], 0)


def test_no_more_shards_are_taken_than_there_are_threads_to_write_them(run: Run) -> None:
    may_go_on, n_threads = threading.Event(), count_threads(run.filesystem)
    taken = []

    def complete(shard: WholeShard, former: CommittedShard | None) -> None:
        assert may_go_on.wait(LONG_S)

    def arrivals() -> Iterator[list[WholeShard]]:
        for number in range(n_threads + 5):
            taken.append(number)
            yield [whole(str(number))]

    committer = Committer(run, FINGERPRINT, {}, complete, lambda _: None)
    thread = threading.Thread(target=committer.commit_all, args=(arrivals(),))
    thread.start()
    # One more than there are threads is taken, and waits.
    wait_until(lambda: len(taken) == n_threads + 1)
    time.sleep(0.2)
    n_taken = len(taken)
    may_go_on.set()
    thread.join()
    assert (n_taken, len(taken)) == (n_threads + 1, n_threads + 5)


def test_the_first_failure_is_raised_though_no_more_shards_become_whole(run: Run) -> None:
    def fail(shard: WholeShard, former: CommittedShard | None) -> WholeShard:
        raise TagstreamError("the disk is full")

    def arrivals() -> Iterator[list[WholeShard]]:
        yield [whole("a")]
        # Rows go on coming, of shards that are not whole yet.
        for _ in range(100 * LONG_S):
            time.sleep(0.01)
            yield []
        pytest.fail("labelling goes on for nobody")

    committer = Committer(run, FINGERPRINT, {}, fail, lambda _: None)
    with pytest.raises(TagstreamError, match="the disk is full"):
        committer.commit_all(arrivals())
    assert committer.n_committing == 0


def test_a_failure_behind_the_last_rows_is_raised(run: Run) -> None:
    def fail(shard: WholeShard, former: CommittedShard | None) -> WholeShard:
        time.sleep(0.1)
        raise TagstreamError("the disk is full")

    with pytest.raises(TagstreamError, match="the disk is full"):
        commit_all(run, [[whole("a")]], fail)


def test_shards_that_are_whole_are_committed_though_the_rows_end_in_an_error(run: Run) -> None:
    def arrivals() -> Iterator[list[WholeShard]]:
        yield [whole("a"), whole("b")]
        raise TagstreamError("an actor died")

    committer = Committer(run, FINGERPRINT, {}, as_it_came, lambda _: None)
    with pytest.raises(TagstreamError, match="an actor died"):
        committer.commit_all(arrivals())
    assert committed(run).keys() == {"a", "b"}
