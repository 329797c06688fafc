"""What compaction is made of: which files become one, how their rows are sorted, and where a new file is made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog.connection import Connection, hide_progress
from pipeline.storage.files import is_local
from pipeline.store.digest import reserve_digest, with_digest
from pipeline.store.ownership import CommittedShards, ShardFile, is_compacted
from pipeline.store.run import Run

# About 8 million labels: sorted in memory, and a billion labels are some hundred files.
_TARGET_BYTES = 128 << 20
# A label's rows lie together: in small groups of rows a query reads little beside them.
LABELS_A_GROUP = 1 << 16
_UNLIKE_EACH_OTHER = {"image_id", "score", "first_token_prob", "content_hash", "key", "caption", "message"}
WORKSPACE = ".compacting-"
_SORT_MEMORY = "2GB"


@dataclass(slots=True)
class Unit:
    """Files that become one."""

    files: list[ShardFile] = field(default_factory=list)
    size_bytes: int = 0


def plan_units(committed: CommittedShards, listed: dict[str, Any]) -> list[Unit]:
    """Neighbours in the order of shards' names: a file then holds a range of them, and others are passed over.

    Args:
        listed: files of labels by name, as the filesystem describes them (`size` in bytes).
    """

    def is_clean(file: ShardFile) -> bool:
        return is_compacted(file.name) and file.name not in committed.superseded

    sizes = {name: info["size"] for name, info in listed.items()}
    waiting = [
        file for file in committed.files.values() if not is_clean(file) or 2 * sizes.get(file.name, 0) < _TARGET_BYTES
    ]
    units: list[Unit] = []
    for file in sorted(waiting, key=lambda file: file.held[0].shard if file.held else file.name):
        if not units or units[-1].size_bytes >= _TARGET_BYTES:
            units.append(Unit())
        units[-1].files.append(file)
        units[-1].size_bytes += sizes.get(file.name, 0)
    return [unit for unit in units if len(unit.files) > 1 or not is_clean(unit.files[0])]


@contextmanager
def sorting(labels: pa.Table, folder: Path) -> Iterator[Connection]:
    """A connection with the table `labels`, which sorts in little memory."""
    with duckdb.connect(config={"memory_limit": _SORT_MEMORY, "temp_directory": str(folder)}) as connection:
        hide_progress(connection)
        connection.register("labels", labels)
        yield connection


def write_rows(path: Path, rows: pa.RecordBatchReader, schema: pa.Schema, rows_a_group: int) -> None:
    """Writes a file with a digest of all its bytes.

    Args:
        rows_a_group: rows that a query reads at once.
    """
    alike = [name for name in schema.names if name not in _UNLIKE_EACH_OTHER]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=alike) as writer:
        for batch in rows:
            writer.write_batch(batch.cast(schema), row_group_size=rows_a_group)
        mark = reserve_digest(writer)
    path.write_bytes(with_digest(path.read_bytes(), mark))


@contextmanager
def workspace(run: Run) -> Iterator[Path]:
    """A folder from which files can be moved into the store, and that nobody takes for a part of it."""
    beside = run.layout.folder("images") if is_local(run.filesystem) else None
    with tempfile.TemporaryDirectory(prefix=WORKSPACE, dir=beside) as folder:
        yield Path(folder)
