"""Damage to listed labels is found, taken out, and nothing else with it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.catalog.views import open_store
from pipeline.store.store import Store
from pipeline.upkeep.verification import verify_run
from tests.fixtures.stored.damage import drop_column, put
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.lists import name_list
from tests.fixtures.stored.verified import FOUND, RUN, all_rows, compact, copy_store, kinds, repair

ANIMALS = name_list("animals", "dog", "cat", "owl", top=2)
LISTED = {ANIMALS: [("dog", 0.5), ("cat", 0.25)]}
Change = Callable[[pa.Table], pa.Table]


def rows_put(row: int, column: str, value: object) -> Change:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        put(row, column, value)(rows)
        return pa.Table.from_pylist(rows, schema=table.schema)

    return change


def described(key: str, value: str) -> Change:
    return lambda table: table.replace_schema_metadata({**table.schema.metadata, f"tagstream.{key}".encode(): value})


DAMAGE: dict[str, tuple[str, Change]] = {
    "a column missing": ("schema", drop_column("score")),
    "another list": ("metadata", described("list", "plants-00000000")),
    "another shard": ("metadata", described("shard", "00001")),
    "another run": ("metadata", described("fingerprint", "other")),
    "another version": ("metadata", described("schema_version", "3")),
    "a row of another shard": ("rows", rows_put(0, "shard", "00001")),
    "another image_id": ("rows", rows_put(0, "image_id", 5)),
    "no such image": ("rows", rows_put(0, "index", 99)),
    "a gap in the ranks": ("rows", rows_put(1, "rank", 3)),
    "scores that rise": ("rows", rows_put(1, "score", 0.75)),
    "a score of 2": ("rows", rows_put(0, "score", 2.0)),
    "a score that is no number": ("rows", rows_put(0, "score", float("nan"))),
    "a label twice": ("rows", rows_put(1, "label", "dog")),
    "a label that is no name": ("rows", rows_put(1, "label", "rose")),
}


@pytest.fixture(scope="module")
def templates(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good stores with a list, to be copied."""
    folder = tmp_path_factory.mktemp("stores")
    for kind in ("plain", "compacted"):
        store = Store(str(folder / kind))
        label_source(store, RUN, str(source), FOUND, listed=LISTED)
        if kind == "compacted":
            compact(store)
    return {kind: folder / kind for kind in ("plain", "compacted")}


def listed_file(store: Store) -> Path:
    return sorted(Path(store.root).glob("listed/*/*/*.parquet"))[0]


def listed_rows(store: Store) -> list[tuple[Any, ...]]:
    return open_store(store.url).sql("SELECT * FROM listed_labels ORDER BY ALL").fetchall()


@pytest.mark.parametrize("kind", ["plain", "compacted"])
def test_a_good_store_is_whole(templates: dict[str, Path], kind: str) -> None:
    verification = verify_run(Store(str(templates[kind])).run(RUN))
    assert verification.findings == []
    # Two shards of four images, one of two; the fixture's odd shard has rejects, too.
    assert (verification.n_listed_files, verification.n_listed) == ({"plain": 3, "compacted": 1}[kind], 20)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(templates: dict[str, Path], tmp_path: Path, name: str) -> None:
    store = copy_store(templates["plain"], tmp_path)
    kind, change = DAMAGE[name]
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(listed_file(store))), sink)
    # Edited as no digest tells.
    listed_file(store).write_bytes(sink.getvalue())
    assert kinds(verify_run(store.run(RUN))) == {kind}


@pytest.mark.parametrize("kind", ["plain", "compacted"])
@pytest.mark.parametrize("damage", ["flip", "cut", "garbage"])
def test_what_is_damaged_is_taken_out_and_scored_again(
    templates: dict[str, Path], source: Path, tmp_path: Path, kind: str, damage: str
) -> None:
    store = copy_store(templates[kind], tmp_path)
    before, other = listed_rows(store), all_rows(store)
    content = bytearray(listed_file(store).read_bytes())
    content[len(content) // 10] ^= 1
    damaged = {"flip": bytes(content), "cut": bytes(content[:-20]), "garbage": b"PAR1" + bytes(99) + b"PAR1"}
    listed_file(store).write_bytes(damaged[damage])
    assert kinds(verify_run(store.run(RUN))) == {"unreadable"}
    assert repair(store) == ["taken out"]
    assert verify_run(store.run(RUN)).findings == []
    assert all_rows(store) == other
    lacking = {shard for shard in ("00000", "00001", "odd") if shard not in {row[1] for row in listed_rows(store)}}
    assert lacking == ({"00000"} if kind == "plain" else {"00000", "00001", "odd"})
    assert [row for row in before if row[1] not in lacking] == listed_rows(store)


def test_taking_out_a_shard_leaves_none_of_its_scores(templates: dict[str, Path], source: Path, tmp_path: Path) -> None:
    store = copy_store(templates["plain"], tmp_path)
    compact(store)
    before = listed_rows(store)
    file = sorted(Path(store.root).glob("images/*/*.parquet"))[0]
    file.write_bytes(b"PAR1")
    assert "taken out" in repair(store)
    assert listed_rows(store) == []
    label_source(store, RUN, str(source), FOUND)
    # Labelled anew without the list: what the list's file holds of the former commits does not count.
    assert listed_rows(store) == []
    store = copy_store(templates["plain"], tmp_path / "again")
    label_source(store, RUN, str(source), FOUND, listed=LISTED)
    assert listed_rows(store) == before


def test_a_record_of_a_list_that_is_lost_or_damaged_is_told(templates: dict[str, Path], tmp_path: Path) -> None:
    store = copy_store(templates["plain"], tmp_path)
    record = Path(store.layout.run(RUN).list_record(ANIMALS.version))
    record.write_text("{")
    assert {finding.kind for finding in verify_run(store.run(RUN)).findings} == {"record"}
    assert repair(store) == ["deleted"]
    (finding,) = verify_run(store.run(RUN)).findings
    assert (finding.kind, finding.message) == ("record", "is missing or damaged")


def test_what_killed_jobs_leave_in_a_list_is_deleted_and_what_is_none_of_ours_stays(
    templates: dict[str, Path], tmp_path: Path
) -> None:
    store = copy_store(templates["plain"], tmp_path)
    folder = listed_file(store).parent
    before = listed_rows(store)
    shutil.copy(folder / "00000.parquet", folder / "gone.parquet")
    (folder / ".0.abc.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"mine")
    found = {Path(finding.path).name: finding.kind for finding in verify_run(store.run(RUN)).findings}
    assert found == {"gone.parquet": "leftover", ".0.abc.tmp": "leftover", "notes.txt": "foreign"}
    assert repair(store) == ["deleted", "deleted"]
    assert (listed_rows(store), (folder / "notes.txt").exists()) == (before, True)
