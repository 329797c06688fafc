"""What jobs note of the files that they commit, so that nobody has to open these to count what they hold.

The files `runs/<run>/ledger/*.parquet` have one row a file of images. A row counts for as long as the file is the one
that was noted: of the same size, and not written after the row. Everything else is as if it had never been noted, so
that a part of the ledger may be lost or damaged at the price of time alone.
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StorageError, StoreError
from pipeline.storage.files import Filesystem, modified_s, storage_errors, write_whole
from pipeline.store.layout import RunLayout
from pipeline.store.ownership import SUFFIX, ShardFile, ShardVersion
from pipeline.store.parquet_file import describe_file, encode_file, read_file
from schemas import LABELLED, LEDGER, REJECTED

N_EXAMPLES = 3
# As many rows as a part gets: few files are read later, and little is lost when a job is killed.
_N_ROWS = 2_000
_N_READERS = 16
_WRITTEN = "written_s"
_COUNTED = (
    "shard",
    "index",
    "key",
    "status",
    "stage",
    "error",
    "message",
    "n_labels",
    "n_unfinished",
    "flat",
    "reused_from",
    "reused_distance",
)


def count_rows(images: pa.Table, n_label_rows: int) -> dict[str, Any]:
    """The counts of a row of `LEDGER`, those of `file` and its sizes left out.

    Args:
        images: rows of images, perhaps of several shards.
        n_label_rows: how many rows their labels have.
    """
    is_rejected = pc.equal(images["status"], REJECTED)
    names = images.column_names
    n_flat = pc.sum(images["flat"]).as_py() if "flat" in names else 0
    n_reused, n_near_duplicates = count_shared(images)
    return {
        "n_shards": pc.count_distinct(images["shard"]).as_py(),
        "n_images": images.num_rows,
        "n_labelled": pc.sum(pc.equal(images["status"], LABELLED)).as_py() or 0,
        "n_rejected": pc.sum(is_rejected).as_py() or 0,
        "n_flat": n_flat or 0,
        "n_labels": pc.sum(images["n_labels"]).as_py() or 0,
        "n_label_rows": n_label_rows,
        "n_unfinished": pc.sum(images["n_unfinished"]).as_py() or 0,
        "rejects": _describe_rejects(images.filter(is_rejected)),
        "n_reused": n_reused,
        "n_near_duplicates": n_near_duplicates,
    }


def count_shared(images: pa.Table) -> tuple[int, int]:
    """How many of the images are labelled and have the labels of another: of the same content, of one that looks alike.

    Args:
        images: of any of the schemas of images.
    """
    if "reused_from" not in images.column_names:
        return 0, 0
    shares = pc.and_(pc.is_valid(images["reused_from"]), pc.equal(images["status"], LABELLED))
    n_shared = pc.sum(shares).as_py() or 0
    if "reused_distance" not in images.column_names:
        return n_shared, 0
    n_near = pc.sum(pc.and_(shares, pc.is_valid(images["reused_distance"]))).as_py() or 0
    return n_shared - n_near, n_near


def counted_columns(names: Sequence[str]) -> list[str]:
    """Those of the columns of a file of images that are counted."""
    return [name for name in _COUNTED if name in names]


def _describe_rejects(rejected: pa.Table) -> str | None:
    """Rejected images by class as JSON, each with the first as examples; None without any."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rejected.select(["stage", "error", "shard", "index", "key", "message"]).to_pylist():
        kind = row.pop("stage"), row.pop("error")
        of_kind = found.setdefault(kind, {"stage": kind[0], "error": kind[1], "n_rejected": 0, "examples": []})
        of_kind["n_rejected"] += 1
        if len(of_kind["examples"]) < N_EXAMPLES:
            of_kind["examples"].append(row)
    return json.dumps(list(found.values())) if found else None


class LedgerWriter:
    """Notes what a job commits; several threads may call it. What was noted last is written by `flush`."""

    def __init__(self, filesystem: Filesystem, layout: RunLayout) -> None:
        self._filesystem, self._layout = filesystem, layout
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def note(self, file: str, sizes: tuple[int, int], version: ShardVersion, counts: Mapping[str, Any]) -> None:
        """Notes a file that is committed.

        Args:
            sizes: bytes of its images and of its labels.
            counts: as `count_rows` gives them.
        """
        row = {"file": file, "images_bytes": sizes[0], "labels_bytes": sizes[1]}
        described = {"source_size": version.size, "source_etag": version.etag}
        with self._lock:
            self._rows.append({**row, **described, **counts})
            rows = self._take() if len(self._rows) >= _N_ROWS else []
        self._write(rows)

    def flush(self) -> None:
        """Writes what is not written yet."""
        with self._lock:
            rows = self._take()
        self._write(rows)

    def _take(self) -> list[dict[str, Any]]:
        rows, self._rows = self._rows, []
        return rows

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        path = f"{self._layout.ledger}/{uuid.uuid4().hex}{SUFFIX}"
        content = encode_file(make_ledger(rows), describe_file({"run": self._layout.run}))
        # A job is not to fail over what saves time: a storage that is broken fails the next commit.
        with contextlib.suppress(StorageError), storage_errors("write the ledger"):
            write_whole(self._filesystem, path, content)


def make_ledger(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of `LEDGER`."""
    # Not from_pylist, for which pyarrow imports pandas.
    columns = [pa.array([row[name] for row in rows], LEDGER.field(name).type) for name in LEDGER.names]
    return pa.Table.from_arrays(columns, schema=LEDGER)


def read_ledger(
    filesystem: Filesystem,
    layout: RunLayout,
    files: Mapping[str, ShardFile],
    labels_bytes: Mapping[str, int | None] | None = None,
) -> pa.Table:
    """Rows of `LEDGER` that tell of files as they are now, one a file.

    Args:
        files: the run's files of images by name.
        labels_bytes: sizes of the run's files of labels; where they are given, a row counts only with such labels.
    """
    noted = pa.concat_tables([LEDGER.append(_FIELD).empty_table(), *_read_parts(filesystem, layout)])
    places = pc.index_in(noted["file"].combine_chunks(), pa.array(list(files), pa.string()))
    kept = noted.append_column("place", places).filter(pc.is_valid(places)).combine_chunks()
    sizes = pa.array([file.size for file in files.values()], pa.int64()).take(kept["place"])
    written = pa.array([file.modified for file in files.values()], pa.float64()).take(kept["place"])
    is_same = pc.and_(pc.equal(sizes, kept["images_bytes"]), pc.less_equal(written, kept[_WRITTEN]))
    if labels_bytes is not None:
        beside = pa.array([labels_bytes.get(name) for name in kept["file"].to_pylist()], pa.int64())
        is_same = pc.and_(is_same, pc.equal(beside, kept["labels_bytes"]))
    kept = kept.filter(is_same)
    # Copies of a part must not count twice.
    _, first = np.unique(kept["place"].to_numpy(), return_index=True)
    return kept.take(first).select(LEDGER.names)


_FIELD = pa.field(_WRITTEN, pa.float64())


def _read_parts(filesystem: Filesystem, layout: RunLayout) -> list[pa.Table]:
    """The parts that can be read, each with the time when it was written."""
    infos = list_parts(filesystem, layout)
    with ThreadPoolExecutor(_N_READERS) as pool:
        parts = pool.map(partial(_read_part, filesystem), infos)
        return [
            rows.append_column(_FIELD, pa.array([modified_s(info)] * rows.num_rows, pa.float64()))
            for rows, info in zip(parts, infos.values(), strict=True)
            if rows is not None
        ]


def find_damaged_parts(filesystem: Filesystem, layout: RunLayout) -> list[str]:
    """Paths of the parts that cannot be read."""
    return [path for path in list_parts(filesystem, layout) if _read_part(filesystem, path) is None]


def _read_part(filesystem: Filesystem, path: str) -> pa.Table | None:
    """Rows of a part; None where it is damaged or gone."""
    try:
        rows, _ = read_file(filesystem, path)
        for name in ("n_reused", "n_near_duplicates"):
            if name not in rows.column_names:
                # Of former versions, whose images do not share labels in this way.
                rows = rows.append_column(LEDGER.field(name), pa.array([0] * rows.num_rows, pa.int64()))
        return rows.select(LEDGER.names).replace_schema_metadata().cast(LEDGER)
    except (StoreError, pa.ArrowException, KeyError) as error:
        if isinstance(error, StorageError) and not isinstance(error.__cause__, FileNotFoundError):
            raise
        return None


def list_parts(filesystem: Filesystem, layout: RunLayout) -> dict[str, Any]:
    """The ledger's files by path, as the filesystem describes them."""
    with storage_errors(f"read {layout.ledger}"):
        try:
            infos = filesystem.ls(layout.ledger, detail=True)
        except FileNotFoundError:
            return {}
    paths = {info["name"]: info for info in infos if info["type"] == "file"}
    return {path: info for path, info in paths.items() if path.endswith(SUFFIX) and "/." not in path[-120:]}
