"""Counts what a run holds: as the ledger notes it, and of files that it does not know by reading them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.store.ledger import N_EXAMPLES, count_rows, counted_columns, make_ledger, read_ledger
from pipeline.store.ownership import CommittedShards
from pipeline.store.parquet_file import reading
from pipeline.store.run import Run
from schemas import LEDGER

_N_READERS = 16
# Footers and columns of smaller files come with one request.
_SMALL_BYTES = 1 << 20
_N_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class RunCounts:
    """What a run holds."""

    n_shards: int
    """Shards that have a sample."""
    n_images: int
    n_labelled: int
    n_rejected: int
    n_flat: int
    n_labels: int
    """As the images name them."""
    n_label_rows: int
    """As they lie in the files of labels."""
    n_unfinished: int
    n_reused: int
    """Labelled images whose labels are those of another of the same content."""
    n_near_duplicates: int
    """Labelled images whose labels are those of another that looks alike."""
    rejects: list[dict[str, Any]]
    """By class, the most frequent first: stage, error, n_rejected, and as `examples` the first three, each with shard,
    index, key and message."""


_SUMS = tuple(field.name for field in fields(RunCounts) if field.name != "rejects")


def count_run(run: Run, committed: CommittedShards) -> RunCounts:
    """Counts what is committed. Raises StoreError where a file has to be read and is damaged or gone."""
    labels_bytes = {name: info.get("size") for name, info in run.list_labels().items()}
    noted = read_ledger(run.filesystem, run.layout, committed.files, labels_bytes)
    known = set(noted["file"].to_pylist()) - committed.superseded.keys()
    noted = noted.filter(pc.is_in(noted["file"], pa.array(list(known), pa.string())))
    reader = _Reader(run, committed, labels_bytes)
    with ThreadPoolExecutor(_N_READERS) as pool:
        read = list(pool.map(reader.count, [name for name in committed.files if name not in known]))
    return _add_up(pa.concat_tables([noted, make_ledger(read)]))


class _Reader:
    """Counts files by reading them."""

    def __init__(self, run: Run, committed: CommittedShards, labels_bytes: Mapping[str, int | None]) -> None:
        self._run, self._committed, self._labels_bytes = run, committed, labels_bytes

    def count(self, name: str) -> dict[str, Any]:
        """A row of `LEDGER` of a file of images and its labels, less the shards that other files own."""
        images_path, labels_path = self._run.layout.images(name), self._run.layout.labels(name)
        lost = self._committed.superseded.get(name, ())
        if name not in self._labels_bytes:
            raise StoreError(f"{labels_path} is missing")
        with reading(images_path), _open(self._run, images_path, self._committed.files[name].size) as file:
            counts = _count_images(file, lost)
        with reading(labels_path), _open(self._run, labels_path, self._labels_bytes[name]) as file:
            counts["n_label_rows"] = _count_labels(file, lost)
        return {**dict.fromkeys(LEDGER.names), "file": name, "images_bytes": 0, "labels_bytes": 0, **counts}


def _open(run: Run, path: str, size: int | None) -> pq.ParquetFile:
    if size is not None and size < _SMALL_BYTES:
        return pq.ParquetFile(pa.BufferReader(run.filesystem.cat_file(path)))
    return pq.ParquetFile(run.filesystem.open(path, "rb"))


def _count_images(file: pq.ParquetFile, lost: Sequence[str]) -> dict[str, Any]:
    """The counts of a row of `LEDGER`, read piece by piece."""
    columns = counted_columns(file.schema_arrow.names)
    shards: set[str] = set()
    pieces = []
    for batch in file.iter_batches(_N_ROWS, columns=columns, use_threads=False):
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(~pc.field("shard").isin(lost)) if lost else rows
        shards.update(pc.unique(rows["shard"]).to_pylist())
        pieces.append(count_rows(rows, 0))
    counts = {name: sum(piece[name] for piece in pieces) for name in _SUMS}
    rejects = _merge_rejects(piece["rejects"] for piece in pieces if piece["rejects"])
    return {**counts, "n_shards": len(shards), "rejects": json.dumps(rejects) if rejects else None}


def _count_labels(file: pq.ParquetFile, lost: Sequence[str]) -> int:
    if not lost:
        n_rows: int = file.metadata.num_rows
        return n_rows
    of_others = pa.array(lost, pa.string())
    batches = file.iter_batches(_N_ROWS, columns=["shard"], use_threads=False)
    return sum(batch.num_rows - (pc.sum(pc.is_in(batch["shard"], of_others)).as_py() or 0) for batch in batches)


def _add_up(rows: pa.Table) -> RunCounts:
    sums = {name: pc.sum(rows[name]).as_py() or 0 for name in _SUMS}
    return RunCounts(**sums, rejects=_merge_rejects(rows["rejects"].drop_null().to_pylist()))


def _merge_rejects(noted: Iterable[str]) -> list[dict[str, Any]]:
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for found in noted:
        for of_file in json.loads(found):
            of_kind = merged.setdefault(
                (of_file["stage"], of_file["error"]), {**of_file, "n_rejected": 0, "examples": []}
            )
            of_kind["n_rejected"] += of_file["n_rejected"]
            examples = [*of_kind["examples"], *of_file["examples"]]
            of_kind["examples"] = sorted(examples, key=lambda row: (row["shard"], row["index"]))[:N_EXAMPLES]
    return sorted(merged.values(), key=lambda of_kind: (-of_kind["n_rejected"], of_kind["error"]))
