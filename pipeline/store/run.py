"""A run in its store: its record, its jobs, its committed shards, and how a shard is committed."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.storage.files import Filesystem, list_folder, modified_s, read_if_exists, storage_errors, write_whole
from pipeline.store.layout import RunLayout
from pipeline.store.ledger import LedgerWriter, count_rows, read_ledger
from pipeline.store.ownership import (
    SUFFIX,
    CommittedShard,
    CommittedShards,
    HeldShard,
    ShardFile,
    ShardVersion,
    file_name,
    find_owners,
    is_compacted,
    read_held,
)
from pipeline.store.parquet_file import describe_file, encode_file, read_file, read_metadata, reading, version_of
from pipeline.text import one_line
from schemas import LABELLED, JobRecord, RunRecord

_N_FOOTER_READERS = 32


class Run:
    """One run of a store, whether it was made yet or not.

    Attributes: `name`; `store_url`, as the user gave it; `filesystem` and `layout`, where its files lie.
    """

    def __init__(self, name: str, store_url: str, filesystem: Filesystem, layout: RunLayout) -> None:
        self.name = name
        self.store_url = store_url
        self.filesystem = filesystem
        self.layout = layout

    def read_record(self) -> RunRecord | None:
        """What the run is made of, or None where there is no such run."""
        path = self.layout.record
        with storage_errors(f"read run {self.name} in the store {self.store_url}"):
            content = read_if_exists(self.filesystem, path)
        try:
            return None if content is None else RunRecord.from_json(content)
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error

    def create(self, record: RunRecord) -> RunRecord:
        """Writes the run's record unless it exists; returns the one that stands, perhaps another job's."""
        with storage_errors(f"write to the store {self.store_url}"):
            if write_whole(self.filesystem, self.layout.record, record.to_json().encode(), if_absent=True):
                return record
        stored = self.read_record()
        if stored is None:
            raise StoreError(
                f"run {self.name} in {self.store_url} vanished while it was being made; run the command again"
            )
        return stored

    def write_job(self, record: JobRecord) -> None:
        """Writes or rewrites a job's record."""
        with storage_errors(f"write to the store {self.store_url}"):
            write_whole(self.filesystem, self.layout.job(record.started), record.to_json().encode())

    def read_jobs(self) -> list[JobRecord]:
        """Records of the run's jobs, oldest first."""
        jobs = []
        for path, content in self.read_job_files().items():
            try:
                jobs.append(JobRecord.from_json(content))
            except (ValueError, TypeError) as error:
                raise StoreError(f"{path} is damaged: {error}; delete it") from error
        return jobs

    def read_job_files(self) -> dict[str, bytes]:
        """Contents of the files of the run's jobs, by path, oldest first."""
        with storage_errors(f"read the jobs of run {self.name} in the store {self.store_url}"):
            try:
                listed = self.filesystem.ls(self.layout.jobs, detail=False)
            except FileNotFoundError:
                return {}
            paths = sorted(path for path in listed if path.endswith(".json") and not _is_hidden(path))
            # Not cat(), which would take brackets in a name for a pattern.
            contents = self.filesystem.cat_ranges(paths, None, None, on_error="raise") if paths else []
        return dict(zip(paths, contents, strict=True))

    def committed(self) -> CommittedShards:
        """The committed shards: one listing, in which only files of several shards are opened."""
        listed = self.list_images()
        compacted = [name for name in listed if is_compacted(name)]
        with ThreadPoolExecutor(_N_FOOTER_READERS) as pool:
            held = dict(zip(compacted, pool.map(self._read_held, compacted), strict=True))
        return find_owners(describe_files(listed, held))

    def list_images(self) -> dict[str, Any]:
        """The files of images by name, as the filesystem describes them, those that own nothing included."""
        return self.list_files(self.layout.folder("images"))

    def list_labels(self) -> dict[str, Any]:
        """The files of labels by name, as the filesystem describes them (`size` in bytes)."""
        return self.list_files(self.layout.folder("labels"))

    def list_files(self, folder: str) -> dict[str, Any]:
        """The files of tables in a folder of the run, by name, as the filesystem describes them."""
        with storage_errors(f"read the store {self.store_url}"):
            try:
                infos = list_folder(self.filesystem, folder)
            except FileNotFoundError:
                return {}
        named = {info["name"].rsplit("/", 1)[-1]: info for info in infos if info["type"] == "file"}
        return {name: info for name, info in named.items() if name.endswith(SUFFIX) and not name.startswith(".")}

    def read_version(self, shard: CommittedShard) -> ShardVersion:
        """Which version of its source a committed shard was made from; may read its file's footer."""
        if shard.version is not None:
            return shard.version
        return version_of(read_metadata(self.filesystem, self.layout.images(shard.file)))

    def noted_versions(self, committed: CommittedShards) -> dict[str, ShardVersion]:
        """Which versions of their sources files of images were made from, of those that the ledger tells of."""
        rows = read_ledger(self.filesystem, self.layout, committed.files)
        columns = (rows[name].to_pylist() for name in ("file", "source_size", "source_etag"))
        return {file: ShardVersion(size, etag) for file, size, etag in zip(*columns, strict=True)}

    def has_labelled(self) -> bool:
        """Whether any committed sample is labelled; reads files until one is found."""
        for name in self.committed().files:
            path = self.layout.images(name)
            with reading(path), self.filesystem.open(path, "rb") as file:
                if pc.any(pc.equal(pq.read_table(file, columns=["status"])["status"], LABELLED)).as_py():
                    return True
        return False

    def read_keys(self, shard: str, committed: CommittedShard) -> set[str]:
        """Keys of all samples of a committed shard."""
        return set(self.read_images(shard, committed, ["key"]).column("key").to_pylist())

    def read_images(self, shard: str, committed: CommittedShard, columns: Sequence[str]) -> pa.Table:
        """Some columns of the images of a committed shard."""
        path = self.layout.images(committed.file)
        with reading(path), self.filesystem.open(path, "rb") as file:
            return pq.read_table(file, columns=list(columns), filters=[("shard", "=", shard)])

    def read_shard(self, shard: str, committed: CommittedShard) -> tuple[pa.Table, pa.Table]:
        """Images and labels of a committed shard."""
        tables = []
        for path in (self.layout.images(committed.file), self.layout.labels(committed.file)):
            # Read whole, for its digest: damage must not be committed anew as if it were what was written.
            table, _ = read_file(self.filesystem, path)
            tables.append(table.filter(pc.field("shard") == shard).replace_schema_metadata())
        return tables[0], tables[1]

    def commit(
        self,
        shard: str,
        images: pa.Table,
        labels: pa.Table,
        metadata: Mapping[str, Any],
        *,
        listed: Mapping[str, pa.Table | None] | None = None,
        replaces: CommittedShard | None = None,
        above: int = -1,
        ledger: LedgerWriter | None = None,
    ) -> bool:
        """Commits a shard: its labels first, then its listed labels, its images last, each whole or not at all.

        Args:
            metadata: goes into the files' Parquet metadata (fingerprint, source_size, source_etag).
            listed: of the run's lists by version, the shard's listed labels; None for a list that the shard lacks.
            replaces: the shard's former commit; this is the generation after it.
            above: a generation that is not to be used again, nor any below it: listed labels may be of it.
            ledger: is told of the files that were written.

        Returns: whether this call committed it; False where another job did before.
        """
        # Two jobs label a shard with the same rows: the name of the commit tells their files apart.
        described = describe_file({"shard": shard, "commit": uuid.uuid4().hex, **metadata})
        first = max(-1 if replaces is None else replaces.generation, above) + 1
        listed = listed or {}
        with storage_errors(f"commit shard {shard} to the store {self.store_url}"):
            labels_content, images_content = encode_file(labels, described), encode_file(images, described)
            generation = self._write_labels(shard, first, labels_content)
            if generation is None:
                return False
            name = file_name(shard, generation)
            for version, rows in listed.items():
                if rows is not None:
                    # The generation is this commit's own: nobody else writes its listed labels before its images.
                    content = encode_file(rows, {**described, **describe_file({"list": version})})
                    write_whole(self.filesystem, self.layout.listed(version, name), content)
            if not write_whole(self.filesystem, self.layout.images(name), images_content, if_absent=True):
                return False
            older = [file_name(shard, number) for number in range(first, generation)]
            if self._is_overtaken(name, older):
                self.delete_files([name])
                self._delete_listed(listed, [name])
                return False
            replaced = [] if replaces is None or is_compacted(replaces.file) else [replaces.file]
            self.delete_files([*replaced, *older])
            former = [] if replaces is None else [file_name(shard, replaces.generation)]
            self._delete_listed(listed, [*former, *older])
        if ledger is not None:
            sizes = len(images_content), len(labels_content)
            made_from = ShardVersion(metadata.get("source_size"), metadata.get("source_etag") or None)
            ledger.note(name, sizes, made_from, count_rows(images, labels.num_rows))
        return True

    def _write_labels(self, shard: str, first: int, content: bytes) -> int | None:
        """Writes labels as the first generation that has none; None where a job has committed the shard before.

        Labels without images are those of a job that died, or of one that is committing right now: either way this
        commit gets a generation of its own, so that labels of one never stand beside images of the other.
        """
        for generation in count(first):
            name = file_name(shard, generation)
            if write_whole(self.filesystem, self.layout.labels(name), content, if_absent=True):
                return generation
            if self.filesystem.exists(self.layout.images(name)):
                return None
        return None

    def _is_overtaken(self, name: str, older: Sequence[str]) -> bool:
        """Whether another job has committed the shard while this one did.

        Either a later generation, which took this one's labels for left behind, or one of those whose labels were taken
        for left behind by this.
        """
        if not self.filesystem.exists(self.layout.labels(name)):
            return True
        return any(self.filesystem.exists(self.layout.images(other)) for other in older)

    def _delete_listed(self, versions: Iterable[str], names: Sequence[str]) -> None:
        for version in versions:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    self.filesystem.rm_file(self.layout.listed(version, name))

    def delete_files(self, names: Iterable[str]) -> None:
        """Deletes files that own no shard, images first: labels without images are not read. Missing files are fine."""
        for name in names:
            tables = ("images", "labels", *(("spellings",) if is_compacted(name) else ()))
            for table in tables:
                with contextlib.suppress(FileNotFoundError):
                    self.filesystem.rm_file(self.layout.file(table, name))

    def _read_held(self, name: str) -> tuple[HeldShard, ...]:
        path = self.layout.images(name)
        try:
            return read_held(read_metadata(self.filesystem, path)["shards"])
        except (KeyError, ValueError, TypeError) as error:
            raise StoreError(f"{path} does not say which shards it holds: {one_line(error)}") from error


def describe_files(listed: Mapping[str, Any], held: Mapping[str, tuple[HeldShard, ...]]) -> list[ShardFile]:
    """Files of images as they are listed.

    Args:
        listed: files by name, as the filesystem describes them.
        held: the shards of those files that hold several.
    """
    return [ShardFile(name, modified_s(info), held.get(name, ()), info.get("size")) for name, info in listed.items()]


def _is_hidden(path: str) -> bool:
    return PurePosixPath(path).name.startswith(".")
