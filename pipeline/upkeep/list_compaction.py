"""Compaction of listed labels: the many small files of a list become fewer, larger ones, sorted by name.

They are put together by themselves: in which files of images the same shards are does not matter.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.connection import read_sql
from pipeline.errors import StoreError
from pipeline.storage.files import move_whole, storage_errors
from pipeline.store.lists import ListedFiles, RunLists
from pipeline.store.ownership import (
    CommittedShards,
    HeldShard,
    ShardFile,
    compacted_file_name,
    held_shards,
    split_file_name,
    write_held,
)
from pipeline.store.parquet_file import describe_file, read_file
from pipeline.store.run import Run
from pipeline.upkeep.sorted_files import LABELS_A_GROUP, Unit, plan_units, sorting, workspace, write_rows
from schemas import LISTED

_N_READERS = 16


def compact_lists(run: Run, committed: CommittedShards) -> tuple[int, int]:
    """Puts the files of each list of a run together; the rows stay exactly the same.

    Args:
        committed: the committed shards of the run.

    Returns: how many files there were, and how many there are. Raises StoreError where the store cannot be read or
    written; what was done stays.
    """
    lists = RunLists(run)
    n_before = n_after = 0
    for version in lists.versions():
        files = lists.files(version, committed)
        lists.delete(version, find_overtaken(files, committed))
        n_before += len(files.owners.files)
        for unit in plan_units(files.owners, files.infos):
            try:
                _compact(run, files, unit)
            except StoreError as error:
                # Another compaction took them, or their shards were labelled again.
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
        n_after += len(lists.files(version, committed).owners.files)
    return n_before, n_after


def find_overtaken(files: ListedFiles, committed: CommittedShards) -> list[str]:
    """Files that count for no shard and never will: all of their shards are committed in this or a later generation."""

    def is_overtaken(file: ShardFile) -> bool:
        return file.name not in files.owners.files and all(
            stem in committed.by_stem and commit.generation <= committed.by_stem[stem].generation
            for stem, commit in held_shards(file)
        )

    return [file.name for file in files.files if is_overtaken(file)]


def _compact(run: Run, files: ListedFiles, unit: Unit) -> None:
    """Writes one file of all shards of a unit, and deletes theirs."""
    with ThreadPoolExecutor(_N_READERS) as pool:
        contents = list(pool.map(lambda file: _read_content(run, files, file), unit.files))
    shards = [shard for _, held, _ in contents for shard in held]
    described = describe_file({"fingerprint": contents[0][2], "list": files.version, "shards": write_held(shards)})
    rows = pa.concat_tables([table for table, _, _ in contents])
    name = compacted_file_name(files.owners.files.values())
    with storage_errors(f"compact run {run.name} in the store {run.store_url}"), workspace(run) as folder:
        with sorting(rows, folder) as connection:
            in_order = connection.sql(read_sql("sorted_labels")).to_arrow_reader(LABELS_A_GROUP)
            write_rows(folder / "listed", in_order, LISTED.with_metadata(described), LABELS_A_GROUP)
        move_whole(run.filesystem, folder / "listed", run.layout.listed(files.version, name))
        RunLists(run).delete(files.version, [file.name for file in unit.files])


def _read_content(run: Run, files: ListedFiles, file: ShardFile) -> tuple[pa.Table, list[HeldShard], str]:
    """The rows of the shards that a file owns, these shards, and the run's fingerprint."""
    table, metadata = read_file(run.filesystem, run.layout.listed(files.version, file.name), ["shard", "label"])
    lost = files.owners.superseded.get(file.name)
    if lost:
        table = table.filter(~pc.field("shard").isin(lost))
    if file.held:
        held = [shard for shard in file.held if files.owners.is_owner(file.name, shard.shard)]
    else:
        held = [HeldShard(metadata["shard"], split_file_name(file.name)[1], file.modified, None, None)]
    return table, held, metadata.get("fingerprint", "")
