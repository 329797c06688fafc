"""Compaction: the many small files of a run become fewer, larger ones, where a label is found in few places.

Safe beside jobs that label, beside another compaction, and when killed: see `pipeline.store.ownership`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.connection import Connection, add_names, read_sql
from pipeline.errors import StoreError
from pipeline.naming.vocabulary import Vocabulary
from pipeline.storage.files import is_local, modified_s, move_whole, storage_errors
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
from pipeline.upkeep.list_compaction import compact_lists
from pipeline.upkeep.sorted_files import LABELS_A_GROUP, WORKSPACE, Unit, plan_units, sorting, workspace, write_rows
from schemas import LABELS, LABELS_OF_VIEWS, SPELLINGS, images_schema

_N_READERS = 16
_IMAGES_A_GROUP = 1 << 14
# What looks left behind may be what another compaction is writing right now.
LEFT_BEHIND_S = 24 * 3600


@dataclass(slots=True)
class CompactionOutcome:
    """What was done to a run."""

    run: str
    n_shards: int
    n_files_before: int
    label_bytes_before: int
    n_files_after: int = 0
    label_bytes_after: int = 0
    n_listed_before: int = 0
    """Files of listed labels, of all lists together."""
    n_listed_after: int = 0
    n_skipped: int = 0
    """Files that were left alone because another job replaced or compacted them meanwhile."""
    seconds: float = 0.0
    """Wall clock of the compaction."""


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
    units = plan_units(committed, listed)
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
    outcome.n_listed_before, outcome.n_listed_after = compact_lists(run, committed)
    outcome.seconds = time.perf_counter() - started
    return outcome


def _size_bytes(committed: CommittedShards, listed: dict[str, Any]) -> int:
    return sum(listed[name]["size"] for name in committed.files if name in listed)


def rewrite_without_superseded(run: Run, file: ShardFile, committed: CommittedShards, vocabulary: Vocabulary) -> None:
    """Replaces a compacted file by one of what it owns, so that nothing of its other shards lies in the store."""
    _compact(run, Unit([file]), committed, vocabulary)


def rewrite_spellings(run: Run, name: str, vocabulary: Vocabulary) -> None:
    """Makes the spellings of a compacted file anew, from its labels."""
    labels, described = read_file(run.filesystem, run.layout.labels(name), dictionaries=["label"])
    own = describe_file({"fingerprint": described.get("fingerprint")})
    with storage_errors(f"write to the store {run.store_url}"), workspace(run) as folder:
        with sorting(labels, folder) as connection:
            _write_spellings(folder / "spellings", connection, vocabulary, own)
        move_whole(run.filesystem, folder / "spellings", run.layout.spellings(name))


@dataclass(frozen=True, slots=True)
class _Content:
    """What a file holds of the shards that it owns."""

    images: pa.Table
    labels: pa.Table
    shards: list[HeldShard]
    fingerprint: str


def _compact(run: Run, unit: Unit, committed: CommittedShards, vocabulary: Vocabulary) -> None:
    """Writes one file of all shards of a unit, and deletes theirs."""
    with ThreadPoolExecutor(_N_READERS) as pool:
        contents = list(pool.map(lambda file: _read_content(run, file, committed), unit.files))
    shards = [shard for content in contents for shard in content.shards]
    fingerprint = contents[0].fingerprint
    images = pa.concat_tables([content.images for content in contents])
    labels = pa.concat_tables([content.labels for content in contents])
    name = compacted_file_name(committed.files.values())
    with storage_errors(f"compact run {run.name} in the store {run.store_url}"), workspace(run) as folder:
        described = describe_file({"fingerprint": fingerprint})
        with sorting(labels, folder) as connection:
            _write_spellings(folder / "spellings", connection, vocabulary, described)
            described |= describe_file({"shards": write_held(shards)})
            in_order = connection.sql(read_sql("sorted_labels")).to_arrow_reader(LABELS_A_GROUP)
            schema = LABELS_OF_VIEWS if "view" in labels.column_names else LABELS
            write_rows(folder / "labels", in_order, schema.with_metadata(described), LABELS_A_GROUP)
        images = images.sort_by([("shard", "ascending"), ("index", "ascending")])
        schema = images_schema(images.column_names)
        write_rows(folder / "images", images.to_reader(), schema.with_metadata(described), _IMAGES_A_GROUP)
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


def _write_spellings(path: Path, connection: Connection, vocabulary: Vocabulary, described: Mapping[str, str]) -> None:
    add_names(connection, vocabulary)
    query = connection.sql(read_sql("compacted_spellings"), params={"vocabulary": vocabulary.version})
    write_rows(path, query.to_arrow_reader(LABELS_A_GROUP), SPELLINGS.with_metadata(described), LABELS_A_GROUP)


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
