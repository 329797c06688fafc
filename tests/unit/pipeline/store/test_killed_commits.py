"""A commit that is killed in front of any of its operations: the shard is whole or not there, and a rerun mends it.

The process is really killed: a child process sends itself SIGKILL in front of its n-th operation on files, for every n
until the commit gets to its end.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.ownership import file_name
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from tests.fixtures.stored.lists import name_list
from tests.fixtures.stored.tables import commit_shard, run_record

RUN = "run-1"
OLD, NEW = {"n_rows": 3, "etag": "v1"}, {"n_rows": 5, "etag": "v2"}
LISTED = {name_list("animals", "cat", "dog"): [("cat", 0.5)]}
_OPERATIONS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.listdir", "os.scandir"}

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a store holds, and the commit that is killed."""

    prepare: Callable[[Store], object]
    replaces: bool
    n_steps: int
    """Operations that a commit has at least; with fewer the test would not see what it is for."""
    with_list: bool = False
    """Whether the commit has the scores of a list, too."""


def _leave_labels_of_a_dead_job(store: Store) -> None:
    commit_shard(store, RUN, "a", **OLD)
    store.filesystem.rm_file(store.layout.run(RUN).images(file_name("a")))


def _compact(store: Store) -> None:
    commit_shard(store, RUN, "a", **OLD)
    compact_run(store.run(RUN), read_vocabulary(None), lambda done, total: None)


def _commit_listed(store: Store) -> None:
    commit_shard(store, RUN, "a", **OLD, listed=LISTED)


SCENARIOS = {
    "new": Scenario(lambda store: None, False, 8),
    "behind a dead job": Scenario(_leave_labels_of_a_dead_job, False, 9),
    "labelled again": Scenario(lambda store: commit_shard(store, RUN, "a", **OLD), True, 10),
    "labelled again, compacted": Scenario(_compact, True, 8),
    "labelled again, with a list": Scenario(_commit_listed, True, 15, with_list=True),
}
# The others are long: each kills ten processes.
FIRST = {"new", "labelled again, with a list"}


def rows(store: Store) -> dict[str, Rows]:
    """Every row of the store; times of commit are no rows."""
    connection = open_store(store.url)
    return {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
        for table in ("images", "stored_labels", "listed_labels")
    }


def prepared(folder: Path, scenario: Scenario) -> Store:
    store = Store(str(folder))
    store.create_run(run_record(RUN))
    commit_shard(store, RUN, "other")
    scenario.prepare(store)
    return store


def commit(store: Store, scenario: Scenario) -> None:
    """What a job does with the shard, the first time or again."""
    committed = store.run(RUN).committed()
    replaces = scenario.replaces
    is_done = "a" in committed and (not replaces or store.run(RUN).read_version(committed["a"]).etag == NEW["etag"])
    if not is_done:
        listed = LISTED if scenario.with_list else None
        commit_shard(store, RUN, "a", **NEW, replace=replaces, listed=listed)


def is_killed_at(step: int, work: Callable[[], None]) -> bool:
    """Does the work in a child process that dies in front of its operation of this number; False where it has fewer."""
    child = os.fork()
    if child == 0:
        try:
            _die_at(step)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _die_at(step: int) -> None:
    n_seen = 0

    def die(event: str, _: tuple[Any, ...]) -> None:
        nonlocal n_seen
        if event in _OPERATIONS:
            n_seen += 1
            if n_seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.long) for name in SCENARIOS]
)
def test_killed_in_front_of_any_operation_a_commit_is_whole_or_not_there(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    start = prepared(tmp_path / "start", scenario)
    undisturbed = Store(str(shutil.copytree(tmp_path / "start", tmp_path / "undisturbed")))
    commit(undisturbed, scenario)
    before, after = rows(start), rows(undisturbed)
    assert before != after

    found = []
    for step in count(1):
        store = Store(str(shutil.copytree(tmp_path / "start", tmp_path / "killed")))
        is_killed = is_killed_at(step, lambda store=store: commit(store, scenario))
        found.append(rows(store))
        assert found[-1] in (before, after)
        commit(store, scenario)
        assert rows(store) == after
        shutil.rmtree(tmp_path / "killed")
        if not is_killed:
            break
    assert step > scenario.n_steps
    # The commit is one instant: before it the former rows, from it on the new ones.
    assert found == sorted(found, key=lambda seen: seen == after)
    assert found[0] == before
