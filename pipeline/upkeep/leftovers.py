"""Files in the folders of a run that hold nothing of it: left behind by killed jobs, or not tagstream's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from pipeline.storage.files import CLOCK_SKEW_S, modified_s, storage_errors
from pipeline.store.layout import TABLES
from pipeline.store.lists import RunLists
from pipeline.store.lock import find_left_locks
from pipeline.store.ownership import SUFFIX, is_compacted
from pipeline.store.run import Run
from pipeline.store.run_files import RunFiles
from pipeline.upkeep.compaction import LEFT_BEHIND_S
from pipeline.upkeep.list_compaction import find_overtaken
from pipeline.upkeep.sorted_files import WORKSPACE
from schemas import JobRecord


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file, or a folder of files, that no commit needs."""

    path: str
    message: str
    name: str = ""
    """Name of a file of images that owns nothing; empty for other leftovers."""
    is_ours: bool = True


class _Ages:
    """Tells what a job or a compaction may still be writing from what it left behind."""

    def __init__(self, jobs: Iterable[JobRecord]) -> None:
        self._now = time.time()
        self._running_since = [_started_s(job) for job in jobs if job.outcome == "running"]

    def is_old(self, info: Any) -> bool:
        """Whether nobody can be writing it."""
        modified = modified_s(info)
        return modified is not None and self._now - modified > LEFT_BEHIND_S

    def is_written_by_no_job(self, info: Any) -> bool:
        """Whether no labelling job can be writing it: none is running that started before it was written."""
        modified = modified_s(info)
        if modified is None or self.is_old(info):
            return modified is not None
        return not any(started - CLOCK_SKEW_S <= modified for started in self._running_since)


def find_leftovers(run: Run, files: RunFiles, jobs: Iterable[JobRecord]) -> Iterator[Leftover]:
    """What nobody reads and nobody can be writing any more; what a job may own right now is passed over."""
    ages = _Ages(jobs)
    for table in TABLES:
        for name, info in _list(run, run.layout.folder(table)):
            found = _judge(table, name, info, files, ages)
            if found is not None:
                yield found
    yield from _find_listed_leftovers(run, files, ages)
    yield from _find_review_leftovers(run, ages)
    for folder in (run.layout.records, run.layout.jobs, run.layout.lists, run.layout.samples, run.layout.ledger):
        for name, info in _list(run, folder):
            if _is_temporary(name) and ages.is_old(info):
                yield Leftover(info["name"], "is half of a record that was never finished")
    for lock in find_left_locks(run):
        yield Leftover(lock.path, "is the lock of a job that was killed, and has expired")


def _find_listed_leftovers(run: Run, files: RunFiles, ages: _Ages) -> Iterator[Leftover]:
    lists = RunLists(run)
    for version in lists.versions():
        of_list = lists.files(version, files.committed)
        overtaken = set(find_overtaken(of_list, files.committed))
        for name, info in _list(run, run.layout.listed_folder(version)):
            path = info["name"].rstrip("/")
            if _is_temporary(name):
                if ages.is_written_by_no_job(info):
                    yield Leftover(path, "is a file of a killed job, half written")
            elif name not in of_list.infos:
                yield Leftover(path, "is not a file of tagstream's", is_ours=False)
            elif name in overtaken:
                yield Leftover(path, "holds only shards that newer files hold")
            elif name not in {*of_list.owners.files, *of_list.unreadable} and ages.is_written_by_no_job(info):
                yield Leftover(path, "belongs to no images: its shard was not committed")


def _find_review_leftovers(run: Run, ages: _Ages) -> Iterator[Leftover]:
    """Among drawn images and reviews, which no job writes: whoever writes them now began a moment ago."""
    for folder in (run.layout.all_drawn, run.layout.all_reviews):
        for name, info in _list(run, folder):
            if _is_temporary(name):
                if ages.is_old(info):
                    yield Leftover(info["name"], "is half of a file that was never finished")
            elif not name.endswith(SUFFIX):
                yield Leftover(info["name"], "is not a file of tagstream's", is_ours=False)


def _judge(table: str, name: str, info: Any, files: RunFiles, ages: _Ages) -> Leftover | None:
    path = info["name"].rstrip("/")
    if name.startswith(WORKSPACE):
        return Leftover(path, "is the workspace of a killed compaction") if ages.is_old(info) else None
    if _is_temporary(name):
        return Leftover(path, "is a file of a killed job, half written") if ages.is_written_by_no_job(info) else None
    is_table = info["type"] == "file" and name.endswith(SUFFIX) and not name.startswith(".")
    if not is_table or (table == "spellings" and not is_compacted(name)):
        return Leftover(path, "is not a file of tagstream's", is_ours=False)
    if name in files.committed.files or name in files.unreadable:
        return None
    if table == "images":
        return Leftover(path, "holds only shards that newer files hold", name)
    if name in files.images:
        # It goes with its images.
        return None
    is_left = ages.is_old(info) if is_compacted(name) else ages.is_written_by_no_job(info)
    return Leftover(path, "belongs to no images: its shard was not committed") if is_left else None


def _list(run: Run, folder: str) -> Iterator[tuple[str, Any]]:
    with storage_errors(f"read the store {run.store_url}"):
        try:
            infos = run.filesystem.ls(folder, detail=True)
        except FileNotFoundError:
            return
    for info in infos:
        # Object stores may list the folder in itself.
        if info["name"].rstrip("/") != folder.rstrip("/"):
            yield PurePosixPath(info["name"]).name, info


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _started_s(job: JobRecord) -> float:
    try:
        return datetime.fromisoformat(job.started).timestamp()
    except ValueError:
        # It may have started at any time.
        return 0.0
