"""The store on disk: where runs, labels and images lie, and how a shard is committed.

STORE/runs/<run>/run.json
STORE/runs/<run>/jobs/<utc-time>.json
STORE/labels/run=<run>/<shard>.parquet
STORE/images/run=<run>/<shard>.parquet      its existence is the shard's commit
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.storage import modified_s, open_filesystem, read_if_exists, storage_errors, write_whole
from schemas import SCHEMA_VERSION, JobRecord, RunRecord

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUFFIX = ".parquet"
_METADATA_PREFIX = "tagstream."
# File systems end a name at 255 bytes.
_MAX_STEM_CHARACTERS = 200
_KEPT_OF_LONG_STEM = 160


@dataclass(frozen=True, slots=True)
class CommittedShard:
    """What a listing tells of a committed shard."""

    path: str
    modified: float | None
    """When it was committed, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class ShardVersion:
    """The version of the source's file that a committed shard was made from."""

    size: int | None
    etag: str | None


class CommittedShards:
    """The committed shards of a run, found by name."""

    def __init__(self, by_file: Mapping[str, CommittedShard]) -> None:
        self._by_file = by_file

    def __len__(self) -> int:
        return len(self._by_file)

    def __contains__(self, shard: str) -> bool:
        return file_name(shard) in self._by_file

    def __getitem__(self, shard: str) -> CommittedShard:
        return self._by_file[file_name(shard)]


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
        with storage_errors(f"read the jobs of run {run} in the store {self.url}"):
            try:
                listed = self.filesystem.ls(f"{self.root}/runs/{run}/jobs", detail=False)
            except FileNotFoundError:
                return []
            paths = sorted(path for path in listed if path.endswith(".json") and not _is_hidden(path))
            # Not cat(), which would take brackets in a name for a pattern.
            contents = self.filesystem.cat_ranges(paths, None, None, on_error="raise") if paths else []
        jobs = []
        for path, content in zip(paths, contents, strict=True):
            try:
                jobs.append(JobRecord.from_json(content))
            except (ValueError, TypeError) as error:
                raise StoreError(f"{path} is damaged: {error}; delete it") from error
        return jobs

    def committed(self, run: str) -> CommittedShards:
        """Committed shards of a run: one listing, no file is opened."""
        with storage_errors(f"read the store {self.url}"):
            try:
                infos = self.filesystem.ls(f"{self.root}/images/run={run}", detail=True)
            except FileNotFoundError:
                infos = []
            names = [PurePosixPath(info["name"]).name for info in infos]
            return CommittedShards(
                {
                    name: CommittedShard(info["name"], modified_s(info))
                    for name, info in zip(names, infos, strict=True)
                    if info["type"] == "file" and name.endswith(_SUFFIX) and not _is_hidden(name)
                }
            )

    def read_version(self, shard: CommittedShard) -> ShardVersion:
        """Which version of its source a committed shard was made from; reads the file's footer."""
        with _reading(shard.path), self.filesystem.open(shard.path, "rb") as file:
            metadata = pq.ParquetFile(file).schema_arrow.metadata or {}
        size = metadata.get(f"{_METADATA_PREFIX}source_size".encode(), b"").decode()
        etag = metadata.get(f"{_METADATA_PREFIX}source_etag".encode(), b"").decode()
        return ShardVersion(int(size) if size else None, etag or None)

    def read_keys(self, run: str, shard: str) -> set[str]:
        """Keys of all samples of a committed shard."""
        path = self.images_path(run, shard)
        with _reading(path), self.filesystem.open(path, "rb") as file:
            return set(pq.read_table(file, columns=["key"]).column("key").to_pylist())

    def commit(
        self, run: str, shard: str, images: pa.Table, labels: pa.Table, metadata: Mapping[str, Any], *, replace: bool
    ) -> bool:
        """Commits a shard: its labels first, its images last, each whole or not at all.

        Args:
            metadata: goes into both files' Parquet metadata (fingerprint, source_size, source_etag).
            replace: overwrite the shard's former commit.

        Returns: whether this call committed it; False where another job did before.
        """
        described = {
            f"{_METADATA_PREFIX}{name}": "" if value is None else str(value)
            for name, value in {"schema_version": SCHEMA_VERSION, "shard": shard, **metadata}.items()
        }
        with storage_errors(f"commit shard {shard} to the store {self.url}"):
            images_path, labels_path = self.images_path(run, shard), self.labels_path(run, shard)
            if not replace and self.filesystem.exists(images_path):
                return False
            write_whole(self.filesystem, labels_path, _encode(labels, described))
            return write_whole(self.filesystem, images_path, _encode(images, described), if_absent=not replace)

    def images_path(self, run: str, shard: str) -> str:
        return f"{self.root}/images/run={run}/{file_name(shard)}"

    def labels_path(self, run: str, shard: str) -> str:
        return f"{self.root}/labels/run={run}/{file_name(shard)}"

    def _run_path(self, run: str) -> str:
        return f"{self.root}/runs/{run}/run.json"


def check_run_name(run: str) -> None:
    """Raises StoreError for a name that cannot be part of a path."""
    if not _RUN_NAME.fullmatch(run):
        raise StoreError(f"run name {run!r} cannot be used; expected letters, digits, '.', '_', '-', at most 100")


def file_name(shard: str) -> str:
    """A shard's file, another one for each name.

    Everything but plain characters is escaped, so that '/' is never taken for '-'; so is a first dot or underscore,
    which tools take for a sign of files to pass over. Of a long name the beginning and a digest are kept; `!` is never
    part of an escaped name.
    """
    stem = quote(shard, safe="+ =,@()")
    if stem.startswith((".", "_")):
        stem = f"%{ord(stem[0]):02X}{stem[1:]}"
    if not stem or len(stem) > _MAX_STEM_CHARACTERS:
        digest = hashlib.blake2b(shard.encode(), digest_size=16).hexdigest()
        stem = f"{stem[:_KEPT_OF_LONG_STEM]}!{digest}"
    return stem + _SUFFIX


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
    pq.write_table(described, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
