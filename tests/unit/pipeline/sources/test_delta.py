"""Which files of a Delta table count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.sources.listing import find_source


def add(path: str, **more: Any) -> dict[str, Any]:
    return {"add": {"path": path, **more}}


def remove(path: str) -> dict[str, Any]:
    return {"remove": {"path": path}}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder with three Parquet files."""
    for name in ("a.parquet", "label=a dog/b.parquet", "c.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def commit(table: Path, version: int, *actions: dict[str, Any]) -> None:
    (table / "_delta_log").mkdir(exist_ok=True)
    (table / "_delta_log" / f"{version:020}.json").write_text("\n".join(map(json.dumps, actions)))


def checkpoint(table: Path, version: int, *paths: str, part: str = "") -> None:
    rows = pa.table({"add": pa.array([None, *({"path": path} for path in paths)], pa.struct([("path", pa.string())]))})
    pq.write_table(rows, table / "_delta_log" / f"{version:020}.checkpoint{part}.parquet")


def found(folder: Path) -> list[str]:
    return [shard.name for shard in find_source(str(folder)).shards]


def test_files_that_were_removed_are_no_shards_and_are_counted(table: Path) -> None:
    commit(table, 0, add("a.parquet"), add("label=a%20dog/b.parquet"))
    commit(table, 1, remove("a.parquet"), add("c.parquet"))
    source = find_source(str(table))
    assert [shard.name for shard in source.shards] == ["c", "label=a dog/b"]
    assert source.skipped == {"system file": 2, "file of a former version": 1}


def test_a_file_that_was_removed_and_added_again_counts(table: Path) -> None:
    commit(table, 0, add("a.parquet"))
    commit(table, 1, remove("a.parquet"))
    commit(table, 2, add("a.parquet"))
    assert found(table) == ["a"]


def test_the_newest_checkpoint_and_the_commits_behind_it_count(table: Path) -> None:
    commit(table, 0, add("a.parquet"))
    commit(table, 2, add("c.parquet"))
    checkpoint(table, 0, "a.parquet")
    checkpoint(table, 1, part=".0000000001.0000000002")
    checkpoint(table, 1, "label=a%20dog/b.parquet", part=".0000000002.0000000002")
    assert found(table) == ["c", "label=a dog/b"]


def test_tables_below_the_source_have_logs_of_their_own(table: Path) -> None:
    commit(table / "label=a dog", 0, add("b.parquet"))
    assert found(table) == ["a", "c", "label=a dog/b"]


def test_rows_that_are_marked_as_removed_are_refused(table: Path) -> None:
    commit(table, 0, add("a.parquet", deletionVector={"cardinality": 1}))
    with pytest.raises(SourceError, match=r"marks rows of a\.parquet as removed, which is not read"):
        find_source(str(table))


@pytest.mark.parametrize("line", ["no json", "[1]", '{"add": {"path": 3}}'])
def test_a_damaged_log_is_one_sentence(table: Path, line: str) -> None:
    commit(table, 0, add("a.parquet"))
    (table / "_delta_log" / f"{1:020}.json").write_text(line)
    with pytest.raises(SourceError, match=r"the log of the Delta table .* cannot be read"):
        find_source(str(table))
