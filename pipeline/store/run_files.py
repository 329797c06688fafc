"""The files of a run as they lie in the store, readable or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage.files import Filesystem, WatchedStream, storage_errors
from pipeline.store.ownership import CommittedShards, HeldShard, find_owners, is_compacted, read_held
from pipeline.store.parquet_file import read_described
from pipeline.store.run import Run, describe_files

_N_FOOTER_READERS = 32


@dataclass(frozen=True, slots=True)
class RunFiles:
    """A run's files by table, and which of them own its shards."""

    run: str
    images: dict[str, Any]
    """By name, as the filesystem describes them."""
    labels: dict[str, Any]
    committed: CommittedShards
    unreadable: list[str] = field(default_factory=list)
    """Compacted files of which nothing tells what they hold. They are neither owners nor ownerless."""

    def size_bytes(self, name: str) -> int:
        """Of a file of images and its labels together."""
        return sum(int(files.get(name, {}).get("size") or 0) for files in (self.images, self.labels))


def list_run_files(run: Run) -> RunFiles:
    """Lists a run's files; unlike `Run.committed` it goes on where a compacted file does not say what it holds.

    Its labels tell it then, so that what it superseded stays superseded until it is taken out.
    """
    images, labels = run.list_images(), run.list_labels()
    compacted = [name for name in images if is_compacted(name)]
    with ThreadPoolExecutor(_N_FOOTER_READERS) as pool:
        held = dict(zip(compacted, pool.map(lambda name: _held_in_any(run, name), compacted), strict=True))
    unreadable = [name for name in compacted if not held[name]]
    listed = describe_files(images, held)
    committed = find_owners([file for file in listed if file.name not in unreadable])
    return RunFiles(run.name, images, labels, committed, unreadable)


def _held_in_any(run: Run, name: str) -> tuple[HeldShard, ...]:
    """The shards of a compacted file, from its images or else from its labels; none where neither tells them."""
    paths = (run.layout.images(name), run.layout.labels(name))
    return next((held for path in paths if (held := find_held(run.filesystem, path))), ())


def find_held(filesystem: Filesystem, path: str) -> tuple[HeldShard, ...]:
    """The shards of a compacted file; none where it is gone, or does not tell them."""
    with storage_errors(f"read {path}"):
        try:
            opened = filesystem.open(path, "rb")
        except FileNotFoundError:
            return ()
        with opened, WatchedStream(opened) as stream:
            try:
                return _read_held(pq.ParquetFile(stream))
            # Damaged bytes raise what they like, also what a failing storage raises.
            except Exception:
                if stream.failure is not None:
                    raise
    return ()


def _read_held(file: pq.ParquetFile) -> tuple[HeldShard, ...]:
    listed = read_described(file).get("shards")
    if listed is not None:
        return read_held(listed)
    # Compactions of former versions list the shards with the images alone.
    shards = pc.unique(file.read(columns=["shard"]).column("shard")).to_pylist()
    return tuple(HeldShard(shard, 0, None, None, None) for shard in shards)
