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
from pipeline.store.lock import LEASE_S, RunLock, find_left_locks, held_lock, read_locks
from pipeline.store.store import Store
from pipeline.upkeep.repair import repair_run
from pipeline.upkeep.verification import verify_run
from tests.fixtures.stored.tables import run_record

RUN = "run-1"
# How long to wait for what comes at once, on any machine.
LONG_S = 60


# SeaweedFS is asked the same in integration/test_object_store.py.
@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.long)])
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


def file_names(store: Store) -> list[str]:
    """Names of all files of the run's folder, hidden ones too."""
    return sorted(path.rsplit("/", 1)[-1] for path in store.filesystem.ls(f"{store.root}/runs/{RUN}", detail=False))


def write_lock(store: Store, number: int, content: bytes = b"{", age_s: float | None = None) -> None:
    """Puts a lock of somebody else's there; by default one that cannot be read.

    Args:
        age_s: since it was written; on the local disk only.
    """
    path = f"{store.root}/runs/{RUN}/lock-{number}.json"
    write_whole(store.filesystem, path, content)
    if age_s is not None:
        os.utime(path, (time.time() - age_s,) * 2)


def lock_threads() -> set[threading.Thread]:
    """Threads that renew a lock."""
    return {thread for thread in threading.enumerate() if thread.name == "lock"}


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


def test_nothing_but_the_lock_is_left_of_taking_it_or_failing_to(store: Store) -> None:
    held(store, lease_s=0)
    held(store)
    assert file_names(store) == ["lock-2.json", "run.json"]
    with pytest.raises(RunLockedError):
        RunLock(store.run(RUN)).take()
    assert file_names(store) == ["lock-2.json", "run.json"]


def test_one_that_lost_its_number_to_a_job_that_is_over_takes_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(filesystem: Any, path: str, content: bytes, **options: Any) -> bool:
        monkeypatch.setattr(lock_module, "write_whole", write_whole)
        other = held(store)
        is_written = write_whole(filesystem, path, content, **options)
        other.release()
        return is_written

    monkeypatch.setattr(lock_module, "write_whole", lose)
    lock = held(store)
    assert numbers(store) == [1]
    assert lock.renew()


def test_locks_are_ordered_by_number_also_where_their_names_are_not(local_store: Store) -> None:
    for number in (10, 9, 100):
        write_lock(local_store, number)
    assert numbers(local_store) == [9, 10, 100]


def test_the_tenth_taker_takes_over_from_the_ninth(local_store: Store) -> None:
    write_lock(local_store, 8, age_s=LEASE_S + 60)
    sleeper = held(local_store, lease_s=0)
    write_lock(local_store, 10)
    assert numbers(local_store) == [9, 10]
    assert not sleeper.renew()


def test_a_lock_that_somebody_else_deleted_meanwhile_is_released(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = held(local_store)
    (standing,) = read_locks(local_store.run(RUN))
    local_store.filesystem.rm_file(standing.path)
    monkeypatch.setattr(lock_module, "read_locks", lambda run: [standing])
    lock.release()


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


@pytest.mark.parametrize(("age_s", "is_held"), [(LEASE_S - 60, True), (LEASE_S + 60, False)])
def test_a_lock_that_cannot_be_read_expires_after_the_usual_lease(
    local_store: Store, age_s: float, is_held: bool
) -> None:
    write_lock(local_store, 4, age_s=age_s)
    if is_held:
        with pytest.raises(RunLockedError):
            held(local_store)
    else:
        held(local_store)
    assert numbers(local_store) == [4 if is_held else 5]


def test_a_lock_says_when_it_was_taken_and_when_it_expires(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, "2026")
    held(local_store, lease_s=90)
    (standing,) = read_locks(local_store.run(RUN))
    assert standing.record is not None
    moments = (standing.record.since, standing.record.expires)
    assert moments == ("2026-06-01T00:00:00+00:00", "2026-06-01T00:01:30+00:00")


# By this machine's clock, which may differ from the storage's by ten minutes.
@pytest.mark.parametrize(
    ("age_s", "is_left"), [(0, False), (LEASE_S + 30, False), (LEASE_S + 570, False), (LEASE_S + 630, True)]
)
def test_a_lock_counts_as_left_behind_once_it_is_clearly_expired(
    local_store: Store, age_s: float, is_left: bool
) -> None:
    write_lock(local_store, 1, age_s=age_s)
    assert [lock.number for lock in find_left_locks(local_store.run(RUN))] == [1] * is_left


def test_who_does_not_get_the_lock_leaves_that_of_the_holder_alone(store: Store) -> None:
    losses: list[str] = []
    holder = held(store)
    with pytest.raises(RunLockedError), held_lock(store.run(RUN), losses.append):
        pass
    assert holder.renew()
    assert losses == []


def test_a_lock_is_renewed_several_times_within_its_lease(local_store: Store) -> None:
    with held_lock(local_store.run(RUN), [].append):
        (standing,) = read_locks(local_store.run(RUN))
    assert standing.record is not None
    # So that a renewal may fail and the next be late.
    assert standing.record.lease_s >= 3 * lock_module._RENEWAL_S


def test_a_storage_that_fails_for_a_while_does_not_end_the_renewal(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_RENEWAL_S", 0.01)
    losses: list[str] = []
    renewals: list[str] = []
    is_renewed = threading.Event()

    def write(filesystem: Any, path: str, content: bytes, **options: Any) -> bool:
        renewals.append(path)
        if len(renewals) <= 2:
            raise OSError("the store is gone")
        is_written = write_whole(filesystem, path, content, **options)
        is_renewed.set()
        return is_written

    with held_lock(local_store.run(RUN), losses.append):
        (standing,) = read_locks(local_store.run(RUN))
        os.utime(standing.path, (0, 0))
        monkeypatch.setattr(lock_module, "write_whole", write)
        assert is_renewed.wait(LONG_S)
        (standing,) = read_locks(local_store.run(RUN))
        assert standing.modified_s is not None
        assert standing.modified_s > time.time() - 60
    assert losses == []
    assert numbers(local_store) == []


@pytest.mark.parametrize("end", [None, RuntimeError, KeyboardInterrupt])
def test_at_the_end_of_the_job_however_it_ends_the_lock_is_gone(store: Store, end: type[BaseException] | None) -> None:
    losses: list[str] = []
    try:
        with held_lock(store.run(RUN), losses.append):
            assert numbers(store) == [1]
            if end:
                raise end
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert file_names(store) == ["run.json"]
    assert losses == []


def test_it_is_renewed_while_the_job_runs_and_a_loss_is_told(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_RENEWAL_S", 0.02)
    losses: list[str] = []
    others = lock_threads()
    with held_lock(local_store.run(RUN), losses.append):
        (keeper,) = lock_threads() - others
        (standing,) = read_locks(local_store.run(RUN))
        deadline = time.monotonic() + LONG_S
        while read_locks(local_store.run(RUN))[0].modified_s == standing.modified_s:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Somebody who took it for expired.
        write_whole(local_store.filesystem, standing.path.replace("lock-1", "lock-2"), b"{}")
        # It is told once: nobody goes on to renew.
        keeper.join(LONG_S)
        assert not keeper.is_alive()
    assert len(losses) == 1
    assert "another job labels beside it" in losses[0]
    assert numbers(local_store) == [2]


def test_a_renewal_that_is_under_way_when_the_job_ends_does_not_bring_the_lock_back(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_RENEWAL_S", 0.01)
    is_under_way = threading.Event()

    def write(filesystem: Any, path: str, content: bytes, **options: Any) -> bool:
        is_under_way.set()
        time.sleep(0.1)
        return write_whole(filesystem, path, content, **options)

    others = lock_threads()
    with held_lock(local_store.run(RUN), [].append):
        (keeper,) = lock_threads() - others
        monkeypatch.setattr(lock_module, "write_whole", write)
        assert is_under_way.wait(LONG_S)
    keeper.join(LONG_S)
    assert numbers(local_store) == []


def test_a_storage_that_fails_at_the_end_does_not_hide_what_ended_the_job(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[str] = []
    lock = held_lock(local_store.run(RUN), losses.append)
    lock.__enter__()
    monkeypatch.setattr(lock_module, "read_locks", fail)
    failure = ZeroDivisionError()
    # The failure goes on its way: nothing else is raised in its place.
    assert lock.__exit__(type(failure), failure, None) is False
    assert losses == []


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
