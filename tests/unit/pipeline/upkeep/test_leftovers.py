"""What lies in a run's folders and is no part of it: told and deleted once nobody can be writing it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.store import Store
from pipeline.upkeep.verification import verify_run
from tests.fixtures.stored.damage import Damager
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import job_record
from tests.fixtures.stored.verified import FOUND, RUN, all_rows, kinds, relabelled, repair

LONG_AGO = time.time() - 2 * 86400


def leave(store: Store, path: str, modified: float | None = None) -> Path:
    """Makes a file below the store."""
    file = Path(store.root, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"PAR1")
    if modified is not None:
        os.utime(file, (modified, modified))
    return file


@pytest.mark.parametrize(
    "path",
    [
        f"labels/run={RUN}/open.parquet",
        f"labels/run={RUN}/00000!g1.parquet",
        f"labels/run={RUN}/compacted!000009-0123456789ab.parquet",
        f"spellings/run={RUN}/compacted!000009-0123456789ab.parquet",
        f"images/run={RUN}/.open.parquet.0123.tmp",
        f"labels/run={RUN}/.open.parquet.0123.tmp",
        f"runs/{RUN}/jobs/.x.json.0123.tmp",
        f"runs/{RUN}/.run.json.0123.tmp",
        f"images/run={RUN}/.compacting-x/labels",
    ],
)
def test_what_was_left_long_ago_is_told_and_deleted(store: Store, path: str) -> None:
    store.run(RUN).write_job(job_record(RUN, started="2026-01-02T00:00:00+00:00", outcome="running"))
    before = all_rows(store)
    file = leave(store, path, LONG_AGO)
    os.utime(file.parent, (LONG_AGO, LONG_AGO))
    found = verify_run(store.run(RUN))
    assert (kinds(found), found.is_whole) == ({"leftover"}, True)
    assert repair(store) == ["deleted"]
    assert not file.exists()
    assert all_rows(store) == before


def test_what_a_running_job_may_own_is_neither_told_nor_deleted(store: Store) -> None:
    started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 3600))
    store.run(RUN).write_job(job_record(RUN, started=started, outcome="running"))
    names = ("open.parquet", "00000!g1.parquet", ".open.parquet.0123.tmp")
    left = [leave(store, f"labels/run={RUN}/{name}") for name in names]
    left.append(leave(store, f"labels/run={RUN}/compacted!000009-0123456789ab.parquet"))
    left.append(leave(store, f"images/run={RUN}/.compacting-x/labels"))
    assert verify_run(store.run(RUN)).findings == []
    assert repair(store) == []
    assert all(file.exists() for file in left)


def test_what_is_older_than_all_running_jobs_is_of_one_that_died(store: Store) -> None:
    started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    store.run(RUN).write_job(job_record(RUN, started=started, outcome="running"))
    leave(store, f"labels/run={RUN}/open.parquet", time.time() - 3600)
    assert kinds(verify_run(store.run(RUN))) == {"leftover"}


def test_images_that_own_nothing_are_deleted_with_their_labels(tmp_path: Path) -> None:
    store, _ = relabelled(tmp_path, "plain")
    before = all_rows(store)
    found = verify_run(store.run(RUN))
    assert [finding.path for finding in found.findings] == [f"images/run={RUN}/00001.parquet"]
    assert repair(store) == ["deleted"]
    assert len(store.run(RUN).list_labels()) == len(store.run(RUN).list_images()) == 3
    assert all_rows(store) == before


def test_files_of_others_are_told_and_left_alone(store: Store) -> None:
    names = (f"images/run={RUN}/notes.txt", f"labels/run={RUN}/sub/x.parquet", f"spellings/run={RUN}/0.parquet")
    files = [leave(store, name, LONG_AGO) for name in names]
    found = verify_run(store.run(RUN))
    assert (kinds(found), len(found.findings), found.is_whole) == ({"foreign"}, 3, True)
    assert repair(store) == []
    assert all(file.exists() for file in files)


def test_images_that_were_deleted_make_their_shard_open(
    store: Store, source: Path, good_rows: dict[str, list[Any]]
) -> None:
    Damager(store, RUN, "00000.parquet").delete("images")
    assert kinds(verify_run(store.run(RUN))) == {"leftover"}
    repair(store)
    label_source(store, RUN, str(source), FOUND)
    assert all_rows(store) == good_rows


def files_of_a_job(store: Store, modified: float) -> list[Path]:
    """What a labelling job may be writing."""
    return [
        leave(store, f"labels/run={RUN}/open.parquet", modified),
        leave(store, f"images/run={RUN}/.open.parquet.0123.tmp", modified),
    ]


def begin_job(store: Store, started_s: float) -> None:
    started = datetime.fromtimestamp(started_s, UTC).isoformat()
    store.run(RUN).write_job(job_record(RUN, started=started, outcome="running"))


@pytest.mark.parametrize(("minutes_before", "is_left"), [(5, False), (15, True)])
def test_clocks_may_differ_by_ten_minutes(store: Store, minutes_before: float, is_left: bool) -> None:
    started_s = time.time() - 3600
    begin_job(store, started_s)
    files_of_a_job(store, started_s - 60 * minutes_before)
    assert len(verify_run(store.run(RUN)).findings) == (2 if is_left else 0)


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_a_job_that_has_ended_owns_nothing_any_more(store: Store, outcome: str) -> None:
    started = datetime.fromtimestamp(time.time() - 60, UTC).isoformat()
    store.run(RUN).write_job(job_record(RUN, started=started, outcome=outcome))
    files = files_of_a_job(store, time.time())
    assert repair(store) == ["deleted", "deleted"]
    assert not any(file.exists() for file in files)


def test_a_running_job_may_own_everything_where_its_start_cannot_be_read(store: Store) -> None:
    store.run(RUN).write_job(job_record(RUN, started="some time", outcome="running"))
    files_of_a_job(store, time.time() - 3600)
    assert verify_run(store.run(RUN)).findings == []


@pytest.mark.parametrize(("hours", "is_left"), [(23, False), (25, True)])
@pytest.mark.parametrize(
    "path",
    [
        f"labels/run={RUN}/compacted!000009-0123456789ab.parquet",
        f"runs/{RUN}/.run.json.0123.tmp",
        f"runs/{RUN}/jobs/.x.json.0123.tmp",
    ],
)
def test_what_a_compaction_or_a_command_writes_is_left_behind_after_a_day(
    store: Store, path: str, hours: float, is_left: bool
) -> None:
    leave(store, path, time.time() - 3600 * hours)
    assert kinds(verify_run(store.run(RUN))) == ({"leftover"} if is_left else set())
