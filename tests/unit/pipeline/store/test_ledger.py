"""What jobs note of the files that they commit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.store.ledger import LedgerWriter, count_rows, list_parts, read_ledger
from pipeline.store.ownership import ShardVersion
from pipeline.store.parquet_file import describe_file, encode_file, read_file
from pipeline.store.run import Run
from pipeline.store.store import Store
from schemas import IMAGES, REJECTED
from tests.fixtures.stored.tables import run_record, shard_tables

RUN = "r"
DESCRIBED = {"fingerprint": "f", "source_size": 7, "source_etag": "v1"}


def noted(run: Run, labels_bytes: Mapping[str, int | None] | None = None) -> dict[str, dict[str, Any]]:
    rows = read_ledger(run.filesystem, run.layout, run.committed().files, labels_bytes)
    return {row["file"]: row for row in rows.to_pylist()}


def commit(run: Run, shard: str, n_rows: int = 2) -> None:
    ledger = LedgerWriter(run.filesystem, run.layout)
    assert run.commit(shard, *shard_tables(shard, n_rows), DESCRIBED, ledger=ledger)
    ledger.flush()


def filled(store: Store) -> Run:
    """A run of the shards a and b, of two and three images."""
    store.create_run(run_record(RUN))
    run = store.run(RUN)
    commit(run, "a")
    commit(run, "b", 3)
    return run


@pytest.fixture
def run(store: Store) -> Run:
    return filled(store)


def test_what_is_committed_is_noted_with_its_counts_and_the_version_of_its_source(any_store: Store) -> None:
    run = filled(any_store)
    found = noted(run)
    assert {name: (row["n_images"], row["n_label_rows"]) for name, row in found.items()} == {
        "a.parquet": (2, 4),
        "b.parquet": (3, 6),
    }
    assert run.noted_versions(run.committed()) == dict.fromkeys(found, ShardVersion(7, "v1"))


def test_a_file_that_was_written_after_it_was_noted_is_not_known(run: Run) -> None:
    os.utime(run.layout.images("a.parquet"), (2e9, 2e9))
    assert noted(run).keys() == {"b.parquet"}


def test_a_file_of_another_size_is_not_known(run: Run) -> None:
    path = Path(run.layout.images("a.parquet"))
    state = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert noted(run).keys() == {"b.parquet"}


def test_a_file_whose_labels_have_another_size_or_are_gone_is_not_known(run: Run) -> None:
    sizes = {name: info["size"] for name, info in run.list_labels().items()}
    assert noted(run, sizes).keys() == {"a.parquet", "b.parquet"}
    assert noted(run, {**sizes, "a.parquet": 1}).keys() == {"b.parquet"}
    assert noted(run, {"b.parquet": sizes["b.parquet"]}).keys() == {"b.parquet"}


def test_what_is_damaged_is_passed_over(run: Run) -> None:
    first, second = (Path(path) for path in list_parts(run.filesystem, run.layout))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    assert len(noted(run)) == 1
    second.write_bytes(b"")
    assert noted(run) == {}


@pytest.mark.parametrize("columns", [["n_near_duplicates"], ["n_reused", "n_near_duplicates"]])
def test_a_part_of_a_version_without_reuse_counts_no_reused_images(run: Run, columns: list[str]) -> None:
    expected = noted(run)
    for path in list_parts(run.filesystem, run.layout):
        rows, _ = read_file(run.filesystem, path)
        Path(path).write_bytes(encode_file(rows.drop_columns(columns), describe_file({"run": RUN})))
    assert noted(run) == expected
    assert [row[name] for row in expected.values() for name in columns] == [0, 0] * len(columns)


def test_a_part_that_was_copied_counts_once(run: Run) -> None:
    for path in list_parts(run.filesystem, run.layout):
        shutil.copy2(path, f"{path.removesuffix('.parquet')}-copy.parquet")
    assert noted(run).keys() == {"a.parquet", "b.parquet"}


def test_rejects_are_counted_by_class_with_the_first_three() -> None:
    images, _ = shard_tables("a", 6)
    faults = pa.array([None, "NoImage", "NoImage", "Broken", "NoImage", "NoImage"])
    columns = {name: images[name] for name in images.column_names} | {
        "error": faults,
        "stage": pa.array([fault and "read" for fault in faults.to_pylist()]),
        "status": pc.if_else(pc.is_valid(faults), REJECTED, images["status"]),
    }
    counts = count_rows(pa.table(columns, schema=IMAGES), 2)
    assert (counts["n_images"], counts["n_labelled"], counts["n_rejected"]) == (6, 1, 5)
    found = {reject["error"]: reject for reject in json.loads(counts["rejects"])}
    assert {error: reject["n_rejected"] for error, reject in found.items()} == {"NoImage": 4, "Broken": 1}
    assert [example["index"] for example in found["NoImage"]["examples"]] == [1, 2, 4]


def test_a_job_does_not_fail_over_its_ledger(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr("pipeline.store.ledger.write_whole", fail)
    commit(run, "c")
    assert noted(run).keys() == {"a.parquet", "b.parquet"}
    assert "c" in run.committed()
