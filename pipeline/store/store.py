"""The store on disk: where runs, labels and images lie, and how a shard is committed.

STORE/runs/<run>/run.json
STORE/runs/<run>/jobs/<utc-time>.json
STORE/runs/<run>/lock-<n>.json              while a job holds the run (`pipeline.store.lock`)
STORE/labels/run=<run>/<shard>.parquet
STORE/images/run=<run>/<shard>.parquet      its existence is the shard's commit
STORE/spellings/run=<run>/<file>.parquet    the distinct labels of a compacted file, named

`pipeline.store.ownership`: names of the files, and what holds where several hold a shard.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.storage.files import modified_s, open_filesystem, read_if_exists, storage_errors, write_whole
from pipeline.store.digest import has_other_digest, reserve_digest, with_digest
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
from pipeline.text import one_line
from schemas import SCHEMA_VERSION, JobRecord, RunRecord

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_METADATA_PREFIX = "tagstream."
_N_FOOTER_READERS = 32


class Store:
    """A store of any number of runs, local or on an object store."""

    def __init__(self, url: str) -> None:
        self.url = url
        with storage_errors(f"open the store {url}"):
            self.filesystem, self.root = open_filesystem(url)

    def exists(self) -> bool:
        """Whether any run was ever made here."""
        return bool(self.run_names())

    def run_names(self) -> list[str]:
        """Names of the store's runs, sorted."""
        with storage_errors(f"read the store {self.url}"):
            folder = f"{self.root}/runs"
            try:
                entries = self.filesystem.ls(folder, detail=False)
            except FileNotFoundError:
                return []
            names = [PurePosixPath(entry.rstrip("/")).name for entry in entries if entry.rstrip("/") != folder]
            return sorted(name for name in names if _RUN_NAME.fullmatch(name))

    def read_run(self, run: str) -> RunRecord | None:
        """What makes the run, or None where there is no such run."""
        with storage_errors(f"read run {run} in the store {self.url}"):
            content = read_if_exists(self.filesystem, self._run_path(run))
        try:
            return None if content is None else RunRecord.from_json(content)
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._run_path(run)} is damaged: {error}") from error

    def find_run(self, run: str | None) -> RunRecord:
        """What makes a run, by default the only one. Raises StoreError where there is none, or a choice."""
        names = self.run_names()
        if run is None and len(names) > 1:
            raise StoreError(f"the store holds {len(names)} runs ({', '.join(names)}); choose one with --run")
        name = run or (names[0] if names else "")
        record = self.read_run(name) if name in names else None
        if record is None:
            raise StoreError(f"there is no run {name} in the store {self.url}" if name else f"{self.url} holds no run")
        return record

    def create_run(self, record: RunRecord) -> RunRecord:
        """Writes the run's record unless it exists; returns the one that stands, perhaps another job's."""
        check_run_name(record.run)
        with storage_errors(f"write to the store {self.url}"):
            content = record.to_json().encode()
            if write_whole(self.filesystem, self._run_path(record.run), content, if_absent=True):
                return record
        standing = self.read_run(record.run)
        if standing is None:
            raise StoreError(f"run {record.run} in {self.url} vanished while it was being made; run the command again")
        return standing

    def write_job(self, record: JobRecord) -> None:
        """Writes or rewrites a job's record."""
        with storage_errors(f"write to the store {self.url}"):
            path = f"{self.root}/runs/{record.run}/jobs/{record.started.replace(':', '-')}.json"
            write_whole(self.filesystem, path, record.to_json().encode())

    def read_jobs(self, run: str) -> list[JobRecord]:
        """Records of the run's jobs, oldest first."""
        jobs = []
        for path, content in self.read_job_files(run).items():
            try:
                jobs.append(JobRecord.from_json(content))
            except (ValueError, TypeError) as error:
                raise StoreError(f"{path} is damaged: {error}; delete it") from error
        return jobs

    def read_job_files(self, run: str) -> dict[str, bytes]:
        """What the files of the run's jobs hold, by path, oldest first."""
        with storage_errors(f"read the jobs of run {run} in the store {self.url}"):
            try:
                listed = self.filesystem.ls(f"{self.root}/runs/{run}/jobs", detail=False)
            except FileNotFoundError:
                return {}
            paths = sorted(path for path in listed if path.endswith(".json") and not _is_hidden(path))
            # Not cat(), which would take brackets in a name for a pattern.
            contents = self.filesystem.cat_ranges(paths, None, None, on_error="raise") if paths else []
        return dict(zip(paths, contents, strict=True))

    def committed(self, run: str) -> CommittedShards:
        """Committed shards of a run: one listing, only files of several shards are opened."""
        listed = {name: modified_s(info) for name, info in self.list_images(run).items()}
        compacted = [name for name in listed if is_compacted(name)]
        with ThreadPoolExecutor(_N_FOOTER_READERS) as pool:
            held = dict(zip(compacted, pool.map(lambda name: self._read_held(run, name), compacted), strict=True))
        return find_owners([ShardFile(name, modified, held.get(name, ())) for name, modified in listed.items()])

    def list_images(self, run: str) -> dict[str, Any]:
        """The run's files of images by name, as the filesystem describes them, those that own nothing included."""
        return self._list_files(self.images_file(run, ""))

    def list_labels(self, run: str) -> dict[str, Any]:
        """The run's files of labels by name, as the filesystem describes them (`size` in bytes)."""
        return self._list_files(self.labels_file(run, ""))

    def _list_files(self, folder: str) -> dict[str, Any]:
        with storage_errors(f"read the store {self.url}"):
            try:
                infos = self.filesystem.ls(folder, detail=True)
            except FileNotFoundError:
                return {}
        named = {PurePosixPath(info["name"]).name: info for info in infos if info["type"] == "file"}
        return {name: info for name, info in named.items() if name.endswith(SUFFIX) and not _is_hidden(name)}

    def read_version(self, run: str, shard: CommittedShard) -> ShardVersion:
        """Which version of its source a committed shard was made from; may read its file's footer."""
        if shard.version is not None:
            return shard.version
        return version_of(self._read_metadata(self.images_file(run, shard.file)))

    def read_keys(self, run: str, shard: str, committed: CommittedShard) -> set[str]:
        """Keys of all samples of a committed shard."""
        path = self.images_file(run, committed.file)
        with _reading(path), self.filesystem.open(path, "rb") as file:
            table = pq.read_table(file, columns=["key"], filters=[("shard", "=", shard)])
        return set(table.column("key").to_pylist())

    def read_shard(self, run: str, shard: str, committed: CommittedShard) -> tuple[pa.Table, pa.Table]:
        """Images and labels of a committed shard."""
        tables = []
        for path in (self.images_file(run, committed.file), self.labels_file(run, committed.file)):
            # Read whole, for its digest: damage must not be committed anew as if it were what was written.
            table, _ = self.read_file(path)
            tables.append(table.filter(pc.field("shard") == shard).replace_schema_metadata())
        return tables[0], tables[1]

    def read_file(self, path: str, dictionaries: Sequence[str] = ()) -> tuple[pa.Table, dict[str, str]]:
        """A file's rows and what it says of itself.

        Args:
            dictionaries: columns of few values, kept as such.
        """
        with _reading(path):
            content = self.filesystem.cat_file(path)
            file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=list(dictionaries))
            if has_other_digest(file, content):
                raise pa.ArrowInvalid("its digest is that of other bytes")
            return file.read(), read_described(file)

    def commit(
        self,
        run: str,
        shard: str,
        images: pa.Table,
        labels: pa.Table,
        metadata: Mapping[str, Any],
        *,
        replaces: CommittedShard | None = None,
    ) -> bool:
        """Commits a shard: its labels first, its images last, each whole or not at all.

        Args:
            metadata: goes into both files' Parquet metadata (fingerprint, source_size, source_etag).
            replaces: the shard's former commit; this is the generation after it.

        Returns: whether this call committed it; False where another job did before.
        """
        # Two jobs label a shard with the same rows: the name of the commit tells their files apart.
        described = describe_file({"shard": shard, "commit": uuid.uuid4().hex, **metadata})
        first = 0 if replaces is None else replaces.generation + 1
        with storage_errors(f"commit shard {shard} to the store {self.url}"):
            generation = self._write_labels(run, shard, first, _encode(labels, described))
            if generation is None:
                return False
            name = file_name(shard, generation)
            images_path = self.images_file(run, name)
            if not write_whole(self.filesystem, images_path, _encode(images, described), if_absent=True):
                return False
            older = [file_name(shard, number) for number in range(first, generation)]
            if self._is_overtaken(run, name, older):
                self.delete_files(run, [name])
                return False
            replaced = [] if replaces is None or is_compacted(replaces.file) else [replaces.file]
            self.delete_files(run, [*replaced, *older])
            return True

    def _is_overtaken(self, run: str, name: str, older: Sequence[str]) -> bool:
        """Whether another job has committed the shard while this one did.

        Either a later generation, which took this one's labels for left behind, or one of those whose labels were taken
        for left behind by this.
        """
        if not self.filesystem.exists(self.labels_file(run, name)):
            return True
        return any(self.filesystem.exists(self.images_file(run, other)) for other in older)

    def _write_labels(self, run: str, shard: str, first: int, content: bytes) -> int | None:
        """Writes labels as the first generation that has none; None where a job has committed the shard before.

        Labels without images are those of a job that died, or of one that is committing right now: either way this
        commit gets a generation of its own, so that labels of one never stand beside images of the other.
        """
        for generation in count(first):
            name = file_name(shard, generation)
            if write_whole(self.filesystem, self.labels_file(run, name), content, if_absent=True):
                return generation
            if self.filesystem.exists(self.images_file(run, name)):
                return None
        return None

    def delete_files(self, run: str, names: Iterable[str]) -> None:
        """Deletes files that own no shard, the images first: labels without them are not read. What is gone is gone."""
        for name in names:
            paths = [self.images_file(run, name), self.labels_file(run, name)]
            for path in paths + ([self.spellings_file(run, name)] if is_compacted(name) else []):
                with contextlib.suppress(FileNotFoundError):
                    self.filesystem.rm_file(path)

    def images_file(self, run: str, name: str) -> str:
        """The path of one of the run's files of images."""
        return f"{self.root}/images/run={run}/{name}"

    def labels_file(self, run: str, name: str) -> str:
        """The path of the labels that belong to a file of images."""
        return f"{self.root}/labels/run={run}/{name}"

    def spellings_file(self, run: str, name: str) -> str:
        """The path of the distinct labels of a compacted file."""
        return f"{self.root}/spellings/run={run}/{name}"

    def _read_held(self, run: str, name: str) -> tuple[HeldShard, ...]:
        path = self.images_file(run, name)
        try:
            return read_held(self._read_metadata(path)["shards"])
        except (KeyError, ValueError, TypeError) as error:
            raise StoreError(f"{path} does not say which shards it holds: {one_line(error)}") from error

    def _read_metadata(self, path: str) -> dict[str, str]:
        with _reading(path), self.filesystem.open(path, "rb") as file:
            return read_described(pq.ParquetFile(file))

    def _run_path(self, run: str) -> str:
        return f"{self.root}/runs/{run}/run.json"


def check_run_name(run: str) -> None:
    """Raises StoreError for a name that cannot be part of a path."""
    if not _RUN_NAME.fullmatch(run):
        raise StoreError(f"run name {run!r} cannot be used; expected letters, digits, '.', '_', '-', at most 100")


def describe_file(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as a file's Parquet metadata has them."""
    return {
        f"{_METADATA_PREFIX}{name}": "" if value is None else str(value)
        for name, value in {"schema_version": SCHEMA_VERSION, **values}.items()
    }


def version_of(described: Mapping[str, str]) -> ShardVersion:
    """The version of the source that a shard's own file says it was made from."""
    size = described.get("source_size")
    return ShardVersion(int(size) if size else None, described.get("source_etag") or None)


def read_described(file: pq.ParquetFile) -> dict[str, str]:
    """What a file of the store says of itself."""
    metadata = file.schema_arrow.metadata or {}
    return {
        key.decode().removeprefix(_METADATA_PREFIX): value.decode()
        for key, value in metadata.items()
        if key.startswith(_METADATA_PREFIX.encode())
    }


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what goes wrong with a committed file into a StoreError."""
    try:
        with storage_errors(f"read {path}"):
            yield
    except pa.ArrowException as error:
        raise StoreError(f"{path} is damaged: {error}; delete it, and its shard is labelled again") from error


def _is_hidden(path: str) -> bool:
    return PurePosixPath(path).name.startswith(".")


def _encode(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
    sink = pa.BufferOutputStream()
    described = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    with pq.ParquetWriter(sink, described.schema, compression="zstd") as writer:
        writer.write_table(described)
        mark = reserve_digest(writer)
    return with_digest(sink.getvalue().to_pybytes(), mark)
