"""Lists of names of a run: their records, and which files hold the listed labels of which shards.

Listed labels lie beside the labels: `listed/run=<run>/list=<version>/`. A file holds all listed labels of a shard, or
after compaction of several, and says of each shard which generation it is of. It counts where that generation is the
committed one. So a list may come at any time, to a shard that is committed as well as with its commit; and whoever
labels a shard anew, or puts files together, needs to know nothing of lists.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StoreError
from pipeline.storage.files import modified_s, read_if_exists, storage_errors, write_whole
from pipeline.store.ownership import (
    CommittedShard,
    CommittedShards,
    ShardFile,
    file_name,
    find_owners,
    held_shards,
    is_compacted,
    shard_stem,
)
from pipeline.store.parquet_file import describe_file, encode_file, read_file
from pipeline.store.run import Run
from pipeline.store.run_files import find_held
from pipeline.text import one_line
from schemas import ListRecord

_N_READERS = 32


@dataclass(frozen=True, slots=True)
class ListedFiles:
    """The files of one list."""

    version: str
    infos: dict[str, Any]
    """All files by name, as the filesystem describes them."""
    files: list[ShardFile]
    """Those that say what they hold."""
    unreadable: list[str]
    """Files of several shards that do not say which."""
    owners: CommittedShards
    """The committed shards that have their listed labels, and the files that hold them."""


class RunLists:
    """The lists of a run, whether it has any or not."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def create(self, record: ListRecord) -> None:
        """Writes the record of a list unless the run has it."""
        with storage_errors(f"write to the store {self._run.store_url}"):
            path = self._run.layout.list_record(record.version)
            write_whole(self._run.filesystem, path, record.to_json().encode(), if_absent=True)

    def records(self) -> list[ListRecord]:
        """Records of the lists, those that came first in front."""
        records = []
        for path, content in self.record_files().items():
            try:
                records.append(ListRecord.from_json(content))
            except (ValueError, TypeError) as error:
                raise StoreError(
                    f"{path} is damaged: {one_line(error)}; delete it, and `tagstream label --names` writes it again"
                ) from error
        return sorted(records, key=lambda record: (record.created, record.version))

    def record_files(self) -> dict[str, bytes]:
        """Contents of the records by path."""
        filesystem, layout = self._run.filesystem, self._run.layout
        with storage_errors(f"read the lists of run {self._run.name} in the store {self._run.store_url}"):
            try:
                paths = sorted(path for path in filesystem.ls(layout.lists, detail=False) if path.endswith(".json"))
            except FileNotFoundError:
                return {}
            contents = {path: read_if_exists(filesystem, path) for path in paths if "/." not in path}
        return {path: content for path, content in contents.items() if content is not None}

    def versions(self) -> list[str]:
        """Versions of the lists that have any files, sorted; a list's record may be lost."""
        filesystem, folder = self._run.filesystem, self._run.layout.all_listed
        with storage_errors(f"read the store {self._run.store_url}"):
            try:
                paths = filesystem.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        names = (path.rstrip("/").rsplit("/", 1)[-1] for path in paths)
        return sorted(name.removeprefix("list=") for name in names if name.startswith("list="))

    def files(self, version: str, committed: CommittedShards) -> ListedFiles:
        """The files of a list. Those that do not say what they hold own nothing.

        Args:
            committed: the committed shards of the run.
        """
        layout = self._run.layout
        infos = self._run.list_files(layout.listed_folder(version))
        compacted = [name for name in infos if is_compacted(name)]
        with ThreadPoolExecutor(_N_READERS) as pool:
            paths = [layout.listed(version, name) for name in compacted]
            held = dict(
                zip(compacted, pool.map(lambda path: find_held(self._run.filesystem, path), paths), strict=True)
            )
        unreadable = [name for name in compacted if not held[name]]
        files = [
            ShardFile(name, modified_s(info), held.get(name, ()))
            for name, info in infos.items()
            if name not in unreadable
        ]
        return ListedFiles(version, infos, files, unreadable, find_owners(files, committed))

    def highest_generations(self, files: Iterable[ListedFiles]) -> dict[str, int]:
        """By shard's stem, the highest generation that any file holds: a commit must not take it for its own."""
        highest: dict[str, int] = {}
        for of_list in files:
            for file in of_list.files:
                for stem, commit in held_shards(file):
                    highest[stem] = max(commit.generation, highest.get(stem, 0))
        return highest

    def add(
        self, version: str, shard: str, committed: CommittedShard, listed: pa.Table, metadata: Mapping[str, Any]
    ) -> bool:
        """Adds the listed labels of a shard that is committed, whole or not at all; False where a job did before.

        Args:
            metadata: goes into the file's Parquet metadata (fingerprint).
        """
        described = describe_file({"shard": shard, "list": version, **metadata})
        path = self._run.layout.listed(version, file_name(shard, committed.generation))
        with storage_errors(f"add listed labels of shard {shard} to the store {self._run.store_url}"):
            if not write_whole(self._run.filesystem, path, encode_file(listed, described), if_absent=True):
                return False
            is_there = self._run.filesystem.exists(self._run.layout.images(committed.file))
            if is_there or self._run.committed().has_generation(shard_stem(shard), committed.generation):
                return True
            # The shard was labelled again or taken out: its next commit must not find these.
            with contextlib.suppress(FileNotFoundError):
                self._run.filesystem.rm_file(path)
            return False

    def read(self, files: ListedFiles, shard: str) -> pa.Table | None:
        """The listed labels of a shard that is committed; None where it lacks them.

        Raises StoreError where the file is damaged.
        """
        if shard not in files.owners:
            return None
        path = self._run.layout.listed(files.version, files.owners[shard].file)
        # Read whole, for its digest: damage must not be written anew as if it were what was found.
        table, _ = read_file(self._run.filesystem, path)
        return table.filter(pc.field("shard") == shard).replace_schema_metadata()

    def delete(self, version: str, names: Iterable[str]) -> None:
        """Deletes files of a list; missing ones are fine."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._run.filesystem.rm_file(self._run.layout.listed(version, name))
