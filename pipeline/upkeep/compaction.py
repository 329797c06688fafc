"""Compaction: the many small files of a run become fewer, larger ones, where a label is found in few places.

Safe beside jobs that label, beside another compaction, and when killed: see `pipeline.store.ownership`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.catalog.connection import Connection, add_names, hide_progress, read_sql
from pipeline.errors import StoreError
from pipeline.naming.vocabulary import Vocabulary
from pipeline.storage.files import is_local, modified_s, move_whole, storage_errors
from pipeline.store.digest import reserve_digest, with_digest
from pipeline.store.ownership import (
    CommittedShards,
    HeldShard,
    ShardFile,
    compacted_file_name,
    is_compacted,
    split_file_name,
    write_held,
)
from pipeline.store.parquet_file import describe_file, read_file, version_of
from pipeline.store.run import Run
from schemas import FORMER_IMAGES, IMAGES, LABELS, SPELLINGS

# About 8 million labels: sorted in memory, and a billion labels are some hundred files.
_TARGET_BYTES = 128 << 20
_N_READERS = 16
# A label's rows lie together: in small groups of rows a query reads little beside them.
_LABELS_A_GROUP = 1 << 16
_IMAGES_A_GROUP = 1 << 14
_UNLIKE_EACH_OTHER = {"image_id", "score", "first_token_prob", "content_hash", "key", "caption", "message"}
# What looks left behind may be what another compaction is writing right now.
LEFT_BEHIND_S = 24 * 3600
WORKSPACE = ".compacting-"
_SORT_MEMORY = "2GB"


@dataclass(slots=True)
class CompactionOutcome:
    """What was done to a run."""

    run: str
    n_shards: int
    n_files_before: int
    label_bytes_before: int
    n_files_after: int = 0
    label_bytes_after: int = 0
    n_skipped: int = 0
    """Files that were left alone because another job replaced or compacted them meanwhile."""
    seconds: float = 0.0
    """Wall clock of the compaction."""


@dataclass(slots=True)
class _Unit:
    """Files that become one."""

    files: list[ShardFile] = field(default_factory=list)
    size_bytes: int = 0


def compact_run(run: Run, vocabulary: Vocabulary, on_progress: Callable[[int, int], None]) -> CompactionOutcome:
    """Puts the files of a run together; the rows stay exactly the same.

    Args:
        vocabulary: names the files' distinct labels beforehand, for those who ask with the same one.
        on_progress: is told how many new files of how many are written.

    Raises StoreError where there is no such run, or the store cannot be read or written; what was done stays.
    """
    started = time.perf_counter()
    if run.read_record() is None:
        raise StoreError(f"there is no run {run.name} in the store {run.store_url}")
    committed, listed = run.committed(), run.list_labels()
    _clean(run, committed, listed)
    outcome = CompactionOutcome(run.name, len(committed), len(committed.files), _size_bytes(committed, listed))
    units = _plan_units(committed, listed)
    for done, unit in enumerate(units):
        on_progress(done, len(units))
        try:
            _compact(run, unit, committed, vocabulary)
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            outcome.n_skipped += len(unit.files)
    committed, listed = run.committed(), run.list_labels()
    outcome.n_files_after = len(committed.files)
    outcome.label_bytes_after = _size_bytes(committed, listed)
    outcome.seconds = time.perf_counter() - started
    return outcome


def _size_bytes(committed: CommittedShards, listed: dict[str, Any]) -> int:
    return sum(listed[name]["size"] for name in committed.files if name in listed)


def _plan_units(committed: CommittedShards, listed: dict[str, Any]) -> list[_Unit]:
    """Neighbours in the order of shards' names: a file then holds a range of them, and others are passed over."""

    def is_clean(file: ShardFile) -> bool:
        return is_compacted(file.name) and file.name not in committed.superseded

    sizes = {name: info["size"] for name, info in listed.items()}
    waiting = [
        file for file in committed.files.values() if not is_clean(file) or 2 * sizes.get(file.name, 0) < _TARGET_BYTES
    ]
    units: list[_Unit] = []
    for file in sorted(waiting, key=lambda file: file.held[0].shard if file.held else file.name):
        if not units or units[-1].size_bytes >= _TARGET_BYTES:
            units.append(_Unit())
        units[-1].files.append(file)
        units[-1].size_bytes += sizes.get(file.name, 0)
    return [unit for unit in units if len(unit.files) > 1 or not is_clean(unit.files[0])]


def rewrite_without_superseded(run: Run, file: ShardFile, committed: CommittedShards, vocabulary: Vocabulary) -> None:
    """Replaces a compacted file by one of what it owns, so that nothing of its other shards lies in the store."""
    _compact(run, _Unit([file]), committed, vocabulary)


def rewrite_spellings(run: Run, name: str, vocabulary: Vocabulary) -> None:
    """Makes the spellings of a compacted file anew, from its labels."""
    labels, described = read_file(run.filesystem, run.layout.labels(name), dictionaries=["label"])
    own = describe_file({"fingerprint": described.get("fingerprint")})
    with storage_errors(f"write to the store {run.store_url}"), _workspace(run) as folder:
        with _sorting(labels, folder) as connection:
            _write_spellings(folder / "spellings", connection, vocabulary, own)
        move_whole(run.filesystem, folder / "spellings", run.layout.spellings(name))


@dataclass(frozen=True, slots=True)
class _Content:
    """What a file holds of the shards that it owns."""

    images: pa.Table
    labels: pa.Table
    shards: list[HeldShard]
    fingerprint: str


def _compact(run: Run, unit: _Unit, committed: CommittedShards, vocabulary: Vocabulary) -> None:
    """Writes one file of all shards of a unit, and deletes theirs."""
    with ThreadPoolExecutor(_N_READERS) as pool:
        contents = list(pool.map(lambda file: _read_content(run, file, committed), unit.files))
    shards = [shard for content in contents for shard in content.shards]
    fingerprint = contents[0].fingerprint
    images = pa.concat_tables([content.images for content in contents])
    labels = pa.concat_tables([content.labels for content in contents])
    name = compacted_file_name(committed.files.values())
    with storage_errors(f"compact run {run.name} in the store {run.store_url}"), _workspace(run) as folder:
        described = describe_file({"fingerprint": fingerprint})
        with _sorting(labels, folder) as connection:
            _write_spellings(folder / "spellings", connection, vocabulary, described)
            described |= describe_file({"shards": write_held(shards)})
            in_order = connection.sql(read_sql("sorted_labels")).to_arrow_reader(_LABELS_A_GROUP)
            _write(folder / "labels", in_order, LABELS.with_metadata(described), _LABELS_A_GROUP)
        images = images.sort_by([("shard", "ascending"), ("index", "ascending")])
        schema = IMAGES if "flat" in images.column_names else FORMER_IMAGES
        _write(folder / "images", images.to_reader(), schema.with_metadata(described), _IMAGES_A_GROUP)
        # All are whole before any is seen: who reads the folders without a catalog sees rows twice for an instant.
        move_whole(run.filesystem, folder / "spellings", run.layout.spellings(name))
        move_whole(run.filesystem, folder / "labels", run.layout.labels(name))
        move_whole(run.filesystem, folder / "images", run.layout.images(name))
        run.delete_files([file.name for file in unit.files])


def _read_content(run: Run, file: ShardFile, committed: CommittedShards) -> _Content:
    images, metadata = read_file(run.filesystem, run.layout.images(file.name))
    labels, _ = read_file(run.filesystem, run.layout.labels(file.name), dictionaries=["shard", "label"])
    lost = committed.superseded.get(file.name)
    if lost:
        images, labels = (table.filter(~pc.field("shard").isin(lost)) for table in (images, labels))
    if file.held:
        shards = [held for held in file.held if committed[held.shard].file == file.name]
    else:
        version = version_of(metadata)
        generation = split_file_name(file.name)[1]
        shards = [HeldShard(metadata["shard"], generation, file.modified, version.size, version.etag)]
    return _Content(images, labels, shards, metadata.get("fingerprint", ""))


@contextmanager
def _sorting(labels: pa.Table, folder: Path) -> Iterator[Connection]:
    """A connection with the table `labels`, which sorts in little memory."""
    with duckdb.connect(config={"memory_limit": _SORT_MEMORY, "temp_directory": str(folder)}) as connection:
        hide_progress(connection)
        connection.register("labels", labels)
        yield connection


def _write_spellings(path: Path, connection: Connection, vocabulary: Vocabulary, described: Mapping[str, str]) -> None:
    add_names(connection, vocabulary)
    query = connection.sql(read_sql("compacted_spellings"), params={"vocabulary": vocabulary.version})
    _write(path, query.to_arrow_reader(_LABELS_A_GROUP), SPELLINGS.with_metadata(described), _LABELS_A_GROUP)


def _write(path: Path, rows: pa.RecordBatchReader, schema: pa.Schema, rows_a_group: int) -> None:
    alike = [name for name in schema.names if name not in _UNLIKE_EACH_OTHER]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=alike) as writer:
        for batch in rows:
            writer.write_batch(batch.cast(schema), row_group_size=rows_a_group)
        mark = reserve_digest(writer)
    path.write_bytes(with_digest(path.read_bytes(), mark))


@contextmanager
def _workspace(run: Run) -> Iterator[Path]:
    """A folder from which files can be moved into the store, and that nobody takes for a part of it."""
    beside = run.layout.folder("images") if is_local(run.filesystem) else None
    with tempfile.TemporaryDirectory(prefix=WORKSPACE, dir=beside) as folder:
        yield Path(folder)


def _clean(run: Run, committed: CommittedShards, listed: dict[str, Any]) -> None:
    """Deletes files that own no shard, and what killed jobs left behind."""
    run.delete_files(committed.ownerless)
    left_behind = [name for name, info in listed.items() if _is_left_behind(name, info, committed)]
    run.delete_files(left_behind)
    if is_local(run.filesystem):
        for folder in Path(run.layout.folder("images")).glob(f"{WORKSPACE}*"):
            if time.time() - folder.stat().st_mtime > LEFT_BEHIND_S:
                shutil.rmtree(folder, ignore_errors=True)


def _is_left_behind(name: str, info: Any, committed: CommittedShards) -> bool:
    """Whether a file of labels belongs to no images, and to none that a running job is about to write."""
    if name in committed.files:
        return False
    if is_compacted(name):
        modified = modified_s(info)
        return modified is not None and time.time() - modified > LEFT_BEHIND_S
    stem, generation = split_file_name(name)
    return stem in committed.by_stem and generation <= committed.by_stem[stem].generation
