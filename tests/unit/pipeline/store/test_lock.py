"""The lock of a run: one holder at a time, whoever dies, sleeps or has a wrong clock."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import RunLockedError, StorageError
from pipeline.storage.files import is_local, write_whole
from pipeline.store import lock as lock_module
from pipeline.store.lock import RunLock, held_lock, read_locks
from pipeline.store.store import Store
from pipeline.upkeep.repair import repair_run
from pipeline.upkeep.verification import verify_run
from tests.fixtures.tables import run_record

RUN = "run-1"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store with a run that nobody holds."""
    url = tmp_path / "store" if request.param == "local" else f"{request.getfixturevalue('s3')}/{tmp_path.name}/store"
    store = Store(str(url))
    store.create_run(run_record(RUN))
    return store


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "local"))
    store.create_run(run_record(RUN))
    return store


def held(store: Store, lease_s: float = 300.0) -> RunLock:
    """A lock that was taken; with a lease of 0 it is expired at once."""
    lock = RunLock(store.run(RUN), lease_s)
    lock.take()
    return lock


def numbers(store: Store) -> list[int]:
    return [lock.number for lock in read_locks(store.run(RUN))]


def interposed(monkeypatch: pytest.MonkeyPatch, meanwhile: Any) -> None:
    """Does something in front of the next lock's writing."""

    def write(filesystem: Any, path: str, content: bytes, **options: Any) -> bool:
        if "/lock-" in path:
            monkeypatch.setattr(lock_module, "write_whole", write_whole)
            meanwhile()
        return write_whole(filesystem, path, content, **options)

    monkeypatch.setattr(lock_module, "write_whole", write)


def test_a_second_job_is_told_who_holds_the_run_and_until_when(store: Store) -> None:
    held(store)
    with pytest.raises(
        RunLockedError, match=rf"run {RUN} in .* is held by process {os.getpid()} on .* since 2.*, until"
    ):
        RunLock(store.run(RUN)).take()
    assert numbers(store) == [1]


def test_a_released_lock_is_gone_and_another_job_takes_it(store: Store) -> None:
    held(store).release()
    assert numbers(store) == []
    held(store)
    assert numbers(store) == [1]


def test_an_expired_lock_is_taken_over_and_the_old_one_is_gone(store: Store) -> None:
    held(store, lease_s=0)
    held(store)
    assert numbers(store) == [2]


def test_of_two_that_find_the_same_expired_lock_one_takes_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held(store, lease_s=0)
    interposed(monkeypatch, lambda: held(store))
    with pytest.raises(RunLockedError):
        RunLock(store.run(RUN)).take()
    assert numbers(store) == [2]


def test_one_that_decided_on_locks_that_came_and_went_since_leaves_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(store, lease_s=0)

    def come_and_go() -> None:
        held(store).release()
        # Number 1 once more, by somebody else.
        held(store)

    interposed(monkeypatch, come_and_go)
    with pytest.raises(RunLockedError):
        RunLock(store.run(RUN)).take()
    assert numbers(store) == [1]


def test_a_holder_that_wakes_up_while_it_is_taken_over_keeps_its_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = held(store, lease_s=0)

    def wake_up() -> None:
        sleeper._record = replace(sleeper._record, lease_s=300.0)
        assert sleeper.renew()

    interposed(monkeypatch, wake_up)
    with pytest.raises(RunLockedError):
        RunLock(store.run(RUN)).take()
    assert numbers(store) == [1]
    assert sleeper.renew()


@pytest.mark.parametrize("is_expired", [False, True])
def test_of_many_at_once_exactly_one_takes_the_lock(store: Store, is_expired: bool) -> None:
    if is_expired:
        held(store, lease_s=0)
    n_takers = 8
    barrier, outcomes = threading.Barrier(n_takers), []

    def take() -> None:
        lock = RunLock(store.run(RUN))
        barrier.wait()
        try:
            lock.take()
            outcomes.append("held")
        except RunLockedError:
            outcomes.append("left")

    threads = [threading.Thread(target=take) for _ in range(n_takers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["left"] * (n_takers - 1)
    assert len(numbers(store)) == 1


def test_a_holder_that_was_taken_over_knows_it_and_leaves_the_others_lock_alone(store: Store) -> None:
    sleeper = held(store, lease_s=0)
    held(store)
    assert not sleeper.renew()
    sleeper.release()
    assert numbers(store) == [2]
    with pytest.raises(RunLockedError):
        RunLock(store.run(RUN)).take()


def test_a_renewed_lock_lives_on(local_store: Store) -> None:
    lock = held(local_store)
    (standing,) = read_locks(local_store.run(RUN))
    os.utime(standing.path, (0, 0))
    assert lock.renew()
    (standing,) = read_locks(local_store.run(RUN))
    assert not standing.is_expired(time.time())


@pytest.mark.parametrize(("holders", "takers"), [("1970", "2026"), ("2026", "2999"), ("2999", "1970")])
def test_the_clocks_of_the_jobs_machines_do_not_matter(
    store: Store, monkeypatch: pytest.MonkeyPatch, holders: str, takers: str
) -> None:
    set_clock(monkeypatch, holders)
    held(store)
    (standing,) = read_locks(store.run(RUN))
    assert standing.record is not None
    assert standing.record.expires.startswith(holders)
    set_clock(monkeypatch, takers)
    with pytest.raises(RunLockedError):
        RunLock(store.run(RUN)).take()


def set_clock(monkeypatch: pytest.MonkeyPatch, year: str) -> None:
    """Lets this machine believe that it is the middle of a year; the storage knows better."""
    moment = datetime(int(year), 6, 1, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment

    monkeypatch.setattr(lock_module, "datetime", Clock)
    monkeypatch.setattr(lock_module, "time", SimpleNamespace(time=moment.timestamp))


def test_a_lock_that_cannot_be_read_holds_until_it_expires(store: Store) -> None:
    path = f"{store.root}/runs/{RUN}/lock-4.json"
    write_whole(store.filesystem, path, b"{")
    with pytest.raises(RunLockedError, match=r"a job whose lock .*lock-4\.json cannot be read"):
        RunLock(store.run(RUN)).take()
    if is_local(store.filesystem):
        os.utime(path, (0, 0))
        held(store)
        assert numbers(store) == [5]


@pytest.mark.parametrize("end", [None, RuntimeError, KeyboardInterrupt])
def test_at_the_end_of_the_job_however_it_ends_the_lock_is_gone(store: Store, end: type[BaseException] | None) -> None:
    try:
        with held_lock(store.run(RUN), pytest.fail):
            assert numbers(store) == [1]
            if end:
                raise end
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert numbers(store) == []
    assert [path.rsplit("/", 1)[-1] for path in store.filesystem.ls(f"{store.root}/runs/{RUN}")] == ["run.json"]


def test_it_is_renewed_while_the_job_runs_and_a_loss_is_told(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_RENEWAL_S", 0.02)
    losses: list[str] = []
    told = threading.Event()
    with held_lock(local_store.run(RUN), lambda loss: (losses.append(loss), told.set())):
        (standing,) = read_locks(local_store.run(RUN))
        deadline = time.monotonic() + 10
        while read_locks(local_store.run(RUN))[0].modified_s == standing.modified_s:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Somebody who took it for expired.
        write_whole(local_store.filesystem, standing.path.replace("lock-1", "lock-2"), b"{}")
        assert told.wait(10)
    assert len(losses) == 1
    assert "another job labels beside it" in losses[0]
    assert numbers(local_store) == [2]


def test_a_storage_that_fails_at_the_end_does_not_hide_what_ended_the_job(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = held_lock(local_store.run(RUN), pytest.fail)
    lock.__enter__()
    monkeypatch.setattr(lock_module, "read_locks", fail)
    failure = ZeroDivisionError()
    # The failure goes on its way: nothing else is raised in its place.
    assert lock.__exit__(type(failure), failure, None) is False


def fail(*_: Any) -> Any:
    raise StorageError("the store is gone")


def test_a_held_lock_survives_a_repair_and_one_left_by_a_killed_job_does_not(local_store: Store) -> None:
    held(local_store)
    assert verify_run(local_store.run(RUN)).findings == []
    (standing,) = read_locks(local_store.run(RUN))
    os.utime(standing.path, (time.time() - 2000,) * 2)
    verification = verify_run(local_store.run(RUN))
    assert [finding.kind for finding in verification.findings] == ["leftover"]
    assert [repaired.what for repaired in repair_run(local_store.run(RUN), verification)] == ["deleted"]
    assert numbers(local_store) == []


def test_a_lock_that_was_renewed_since_it_was_found_expired_survives_the_repair(local_store: Store) -> None:
    lock = held(local_store)
    (standing,) = read_locks(local_store.run(RUN))
    os.utime(standing.path, (time.time() - 2000,) * 2)
    verification = verify_run(local_store.run(RUN))
    assert lock.renew()
    assert list(repair_run(local_store.run(RUN), verification)) == []
    assert numbers(local_store) == [1]
