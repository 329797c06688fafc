"""What a run holds, counted with and without opening its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog.connection import query_rows
from pipeline.catalog.views import open_store
from pipeline.errors import StoreError
from pipeline.store.ledger import LedgerWriter, count_rows, list_parts
from pipeline.store.ownership import ShardVersion
from pipeline.store.run import Run
from pipeline.store.store import Store
from pipeline.upkeep.counting import count_run
from pipeline.upkeep.findings import Mend
from pipeline.upkeep.repair import repair_run
from pipeline.upkeep.verification import verify_run
from tests.fixtures.stored.tables import commit_shard
from tests.fixtures.stored.verified import RUN


def note_all(run: Run) -> None:
    """Notes the run's files as the jobs do that commit them."""
    committed, sizes, ledger = run.committed(), run.list_labels(), LedgerWriter(run.filesystem, run.layout)
    for stem, commit in committed.by_stem.items():
        images, labels = run.read_shard(stem, commit)
        bytes_each = committed.files[commit.file].size or 0, sizes[commit.file]["size"]
        ledger.note(commit.file, bytes_each, ShardVersion(None, None), count_rows(images, labels.num_rows))
    ledger.flush()


def as_sql_counts(store: Store) -> dict[str, Any]:
    connection = open_store(store.url)
    (counts,) = query_rows(connection, "status", {"run": RUN})
    rejects = query_rows(connection, "rejects", {"run": RUN})
    for reject in rejects:
        reject["examples"] = [(row["sample"], row["message"]) for row in reject["examples"]]
    return {**counts, "rejects": rejects}


def as_counted(store: Store) -> dict[str, Any]:
    run = store.run(RUN)
    counts = count_run(run, run.committed())
    rejects = [
        {**reject, "examples": [(f"{row['shard']}/{row['key']}", row["message"]) for row in reject["examples"]]}
        for reject in counts.rejects
    ]
    return {"run": RUN, **{name: getattr(counts, name) for name in counts.__slots__}, "rejects": rejects}


@pytest.mark.parametrize("kind", ["store", "compacted"])
@pytest.mark.parametrize("is_noted", [False, True], ids=["read", "noted"])
def test_it_counts_what_sql_counts(kind: str, is_noted: bool, request: pytest.FixtureRequest) -> None:
    store: Store = request.getfixturevalue(kind)
    if is_noted and kind == "store":
        note_all(store.run(RUN))
    # In a compacted store one shard of the large file is superseded then.
    commit_shard(store, RUN, "00001", n_rows=7, replace=True)
    assert as_counted(store) == as_sql_counts(store)


def test_files_that_are_noted_are_not_opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    note_all(store.run(RUN))
    expected = as_sql_counts(store)
    monkeypatch.setattr("pipeline.upkeep.counting._open", lambda *_: pytest.fail("a file was opened"))
    assert as_counted(store) == expected


def damage(path: Path) -> None:
    path.write_bytes(b"PAR1")


@pytest.mark.parametrize(("harm", "message"), [(damage, "damaged"), (Path.unlink, "missing")])
def test_labels_that_are_harmed_are_named(store: Store, harm: Callable[[Path], None], message: str) -> None:
    note_all(store.run(RUN))
    harm(Path(store.layout.run(RUN).labels("00000.parquet")))
    with pytest.raises(StoreError, match=rf"00000\.parquet is {message}"):
        as_counted(store)


def note_wrongly(run: Run) -> None:
    """Notes one label too many of each file."""
    committed, sizes, ledger = run.committed(), run.list_labels(), LedgerWriter(run.filesystem, run.layout)
    for stem, commit in committed.by_stem.items():
        images, labels = run.read_shard(stem, commit)
        bytes_each = committed.files[commit.file].size or 0, sizes[commit.file]["size"]
        ledger.note(commit.file, bytes_each, ShardVersion(None, None), count_rows(images, labels.num_rows + 1))
    ledger.flush()


def break_part(run: Run) -> None:
    note_all(run)
    (path,) = list_parts(run.filesystem, run.layout)
    Path(path).write_bytes(b"PAR1")


@pytest.mark.parametrize("harm", [note_wrongly, break_part])
def test_a_ledger_that_is_wrong_is_found_and_repaired(store: Store, harm: Callable[[Run], None]) -> None:
    run = store.run(RUN)
    harm(run)
    verification = verify_run(run)
    assert {(finding.kind, finding.mend) for finding in verification.findings} == {("record", Mend.DELETE)}
    list(repair_run(run, verification))
    assert verify_run(run).findings == []
    assert as_counted(store) == as_sql_counts(store)
