"""The lock of a run: of two jobs that overlap, the second leaves at once.

It saves work and decides nothing. Shards are committed by put-if-absent whoever labels them, so a job that was stopped,
lost its lock and wakes up does no harm; nor does one that asks for no lock.

`runs/<run>/lock-<n>.json`, renewed by its holder as long as the job runs. A holder that is killed leaves it to expire;
the next job then writes number n + 1 if it is absent: of several at once one succeeds, and deletes number n. How old a
lock is, is told by the storage's clock alone; those of the jobs' machines may be wrong by any time.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from pipeline.background import in_background
from pipeline.errors import RunLockedError, StorageError
from pipeline.storage.files import CLOCK_SKEW_S, modified_s, read_if_exists, storage_errors, write_whole
from pipeline.store.run import Run
from schemas import LockRecord

LEASE_S = 300.0
# Several times within a lease: a storage that fails for a while does not cost the lock.
_RENEWAL_S = 60.0
_LOCK_NAME = re.compile(r"lock-(\d+)\.json")


@dataclass(frozen=True, slots=True)
class StandingLock:
    """A lock as it lies in the store."""

    number: int
    path: str
    modified_s: float | None
    """When it was written last, by the storage's clock; None where that does not tell: such a lock never expires."""
    record: LockRecord | None
    """None for a file that is no record."""

    def is_expired(self, now_s: float) -> bool:
        """Whether its holder has not renewed it in time, at this time of the storage's clock."""
        lease_s = self.record.lease_s if self.record else LEASE_S
        return self.modified_s is not None and now_s - self.modified_s >= lease_s


class RunLock:
    """One job's lock of a run.

    Args:
        lease_s: a lock that is not renewed for so long is anybody's.
    """

    def __init__(self, run: Run, lease_s: float = LEASE_S) -> None:
        self._run, self._number = run, 0
        since = _utc_text(datetime.now(UTC))
        self._record = LockRecord(
            run=run.name,
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=since,
            lease_s=lease_s,
        )

    def take(self) -> None:
        """Raises RunLockedError where another job holds the run, StorageError where the store fails."""
        with storage_errors(f"lock run {self._run.name} in the store {self._run.store_url}"):
            # Who loses a number to another finds that one's lock the next time, or none.
            while not self._write_next(self._standing_expired()):
                pass
            # A lock that came and went since the locks were listed lets two jobs take different numbers.
            for lock in self._standing_expired():
                self._delete(lock.path)

    def renew(self) -> bool:
        """Writes the lock anew; returns False where it is not this job's any more."""
        with storage_errors(f"renew the lock of run {self._run.name} in the store {self._run.store_url}"):
            if not self._is_held():
                return False
            write_whole(self._run.filesystem, self._path, self._content())
            return True

    def release(self) -> None:
        """Deletes the lock where it is this job's."""
        with storage_errors(f"unlock run {self._run.name} in the store {self._run.store_url}"):
            for lock in read_locks(self._run):
                if self._is_own(lock):
                    self._delete(lock.path)

    @property
    def _path(self) -> str:
        return self._run.layout.lock(self._number)

    def _content(self) -> bytes:
        expires = datetime.now(UTC) + timedelta(seconds=self._record.lease_s)
        return replace(self._record, expires=_utc_text(expires)).to_json().encode()

    def _write_next(self, expired: list[StandingLock]) -> bool:
        self._number = 1 + max((lock.number for lock in expired), default=0)
        return write_whole(self._run.filesystem, self._path, self._content(), if_absent=True)

    def _standing_expired(self) -> list[StandingLock]:
        """Locks of others, all of them expired; raises RunLockedError, with this job's own taken back, for others."""
        locks = [lock for lock in read_locks(self._run) if not self._is_own(lock)]
        now_s = self._storage_clock_s() if locks else 0.0
        for lock in locks:
            if not lock.is_expired(now_s):
                self.release()
                raise RunLockedError(
                    f"run {self._run.name} in {self._run.store_url} is held by {describe_holder(lock)}"
                )
        return locks

    def _is_own(self, lock: StandingLock) -> bool:
        return lock.record is not None and lock.record.token == self._record.token

    def _is_held(self) -> bool:
        locks = read_locks(self._run)
        return bool(locks) and self._is_own(locks[-1])

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._run.filesystem.rm_file(path)

    def _storage_clock_s(self) -> float:
        """What time it is where the store lies: that of a file written now."""
        path = self._run.layout.temporary(f"clock.{uuid.uuid4().hex}")
        write_whole(self._run.filesystem, path, b"")
        try:
            return modified_s(self._run.filesystem.info(path)) or 0.0
        finally:
            self._delete(path)


def read_locks(run: Run) -> list[StandingLock]:
    """The locks of a run, by number; more than one only while one is taken over."""
    locks = []
    with storage_errors(f"read the locks of run {run.name} in the store {run.store_url}"):
        try:
            paths = run.filesystem.ls(run.layout.records, detail=False)
        except FileNotFoundError:
            return []
        for path in paths:
            match = _LOCK_NAME.fullmatch(PurePosixPath(path).name)
            if match is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                written_s = modified_s(run.filesystem.info(path))
                content = read_if_exists(run.filesystem, path)
                if content is not None:
                    locks.append(StandingLock(int(match[1]), path, written_s, _parse(content)))
    return sorted(locks, key=lambda lock: lock.number)


def is_lock(path: str) -> bool:
    """Whether a file beside a run's record is a lock."""
    return _LOCK_NAME.fullmatch(PurePosixPath(path).name) is not None


def find_left_locks(run: Run) -> list[StandingLock]:
    """Locks that no living job can hold, by this machine's clock. They do no harm; the next holder deletes them."""
    now_s = time.time() - CLOCK_SKEW_S
    return [lock for lock in read_locks(run) if lock.is_expired(now_s)]


def describe_holder(lock: StandingLock) -> str:
    """Who holds a lock, and until when."""
    record = lock.record
    if record is None:
        return f"a job whose lock {lock.path} cannot be read"
    return f"process {record.pid} on {record.host} since {record.since}, until {record.expires} if it is not renewed"


@contextlib.contextmanager
def held_lock(run: Run, on_loss: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a run while the context lasts.

    Args:
        on_loss: is told in a sentence where another job took the lock over, because this one did not renew it in time.

    Raises RunLockedError where another job holds it.
    """
    lock = RunLock(run)

    def keep(is_over: threading.Event) -> None:
        while not is_over.wait(_RENEWAL_S):
            # A storage that fails may be back the next time.
            with contextlib.suppress(StorageError):
                if not lock.renew():
                    on_loss(
                        f"the lock of run {run.name} expired while this job was held up; another job labels beside it"
                    )
                    return

    try:
        lock.take()
        with in_background("lock", keep):
            yield
    finally:
        # Where the storage fails the lock expires, and must not hide what ended the job.
        with contextlib.suppress(StorageError):
            lock.release()


def _parse(content: bytes) -> LockRecord | None:
    try:
        return LockRecord.from_json(content)
    except (ValueError, TypeError):
        return None


def _utc_text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
