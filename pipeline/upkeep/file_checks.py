"""What can be wrong with the files of a run, found by reading all of their bytes and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.choices import Ranking
from pipeline.store.digest import has_other_digest
from pipeline.store.parquet_file import read_described
from pipeline.text import one_line
from schemas import LABELLED, REJECTED, SCHEMA_VERSION
from schemas.identity import image_ids

# A few values for many rows.
_DICTIONARIES = ("shard", "label", "vocabulary")
# Probabilities are sums of rounded numbers.
_MOST_PROBABLE = 1.001
_CHECKED_IMAGES = ("image_id", "shard", "index", "key", "status", "stage", "error", "n_labels", "n_unfinished")


class DamagedFileError(Exception):
    """A file is not as it was written; kind and message are those of a finding."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one of the tables of a shard."""

    table: str
    """images or labels"""
    kind: str
    message: str


def decode_file(content: bytes, schema: pa.Schema) -> tuple[pa.Table, dict[str, str]]:
    """All rows of a file, and what it says of itself.

    Raises DamagedFileError where anything cannot be as it was written.
    """
    few_values = [name for name in schema.names if name in _DICTIONARIES]
    try:
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=few_values)
        if has_other_digest(file, content):
            raise DamagedFileError("unreadable", "has other bytes than its digest says were written")
        described = read_described(file)
        is_expected = file.schema.equals(_stored_schema(schema))
        table = file.read() if is_expected else pa.Table.from_batches([], schema)
        n_stored = file.metadata.num_rows
    except DamagedFileError:
        raise
    # Damaged bytes raise what they like: errors of Arrow, of Thrift, of Unicode, of memory that is not there.
    except Exception as error:
        raise DamagedFileError("unreadable", f"cannot be read as it was written: {one_line(error)}") from error
    if not is_expected:
        raise DamagedFileError("schema", f"has the columns {_listed(file.schema)}; expected those of schemas/tables.py")
    if table.num_rows != n_stored:
        raise DamagedFileError("unreadable", f"has {table.num_rows:,} rows; its footer says {n_stored:,}")
    return table, described


@cache
def _stored_schema(schema: pa.Schema) -> pq.ParquetSchema:
    """A schema as Parquet files have it."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([], schema), sink)
    return pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema


def _listed(schema: pq.ParquetSchema) -> str:
    listed = ", ".join(f"{column.path} {column.physical_type}" for column in schema)
    return listed if len(listed) < 200 else f"{listed[:200]}..."


def check_described(described: Mapping[str, str], fingerprint: str | None) -> str | None:
    """What is wrong with what a file says of itself, beside its shards.

    Args:
        fingerprint: of the run; None where that is not known.
    """
    if (version := described.get("schema_version")) != str(SCHEMA_VERSION):
        return f"has schema version {version}; expected {SCHEMA_VERSION}"
    if fingerprint is not None and (found := described.get("fingerprint")) != fingerprint:
        return f"has the fingerprint {found}; expected the run's, {fingerprint}"
    return None


def check_rows(images: pa.Table, labels: pa.Table, shards: Sequence[str], ranking: Ranking | None) -> Iterator[Problem]:
    """Whether the rows of a file's shards are whole and belong together.

    Args:
        shards: names of the shards that the file holds.
        ranking: what the run's labels are ranked by; None where that is not known, and scores are in any order.
    """
    held = pa.array(shards, pa.string())
    images = images.select(list(_CHECKED_IMAGES))
    codes = {table: _codes(rows, held) for table, rows in (("images", images), ("labels", labels))}
    strange = {table: int((found < 0).sum()) for table, found in codes.items()}
    if any(strange.values()):
        for table, count in strange.items():
            if count:
                yield Problem(table, "rows", f"{count:,} rows are of other shards than the file says it holds")
        return
    order = np.lexsort((_numbers(images, "index"), codes["images"]))
    whole = _Images(images.take(pa.array(order)), codes["images"][order])
    yield from _check_images(whole, shards)
    yield from _check_labels(whole, _Labels(labels, codes["labels"]), ranking)


@dataclass(frozen=True, slots=True)
class _Images:
    """Images in the order of shard and index."""

    rows: pa.Table
    codes: np.ndarray
    """Of each row, which of the file's shards it is of."""

    @property
    def places(self) -> np.ndarray:
        """Shard and index as one number, which rises from row to row."""
        return _places(self.codes, self.rows)


@dataclass(frozen=True, slots=True)
class _Labels:
    rows: pa.Table
    codes: np.ndarray

    @property
    def places(self) -> np.ndarray:
        return _places(self.codes, self.rows)


def _check_images(images: _Images, shards: Sequence[str]) -> Iterator[Problem]:
    rows = images.rows
    counts = np.bincount(images.codes, minlength=len(shards))
    expected = np.arange(rows.num_rows) - np.repeat(np.cumsum(counts) - counts, counts)
    status = rows.column("status")
    is_rejected = _mask(pc.equal(status, REJECTED))
    is_explained = _mask(pc.and_(*(pc.greater(pc.binary_length(rows.column(name)), 0) for name in ("stage", "error"))))
    if not counts.all():
        yield Problem("images", "rows", f"shard {shards[int(counts.argmin())]} has no rows; expected one a sample")
    for is_wrong, message in (
        (_numbers(rows, "index") != expected, "break the order of index; expected 0, 1, 2, ... in each shard"),
        (
            _numbers(rows, "image_id") != _expected_ids(images, shards),
            "have another image_id than the hash of their shard and key",
        ),
        (
            ~_mask(pc.is_in(status, pa.array([LABELLED, REJECTED]))),
            "have another status than labelled or rejected",
        ),
        (is_rejected & ~is_explained, "are rejected without stage or error"),
        (_numbers(rows, "n_unfinished") < 0, "have a negative number of unfinished branches"),
    ):
        if is_wrong.any():
            yield Problem("images", "rows", f"{_which(rows, is_wrong)} {message}")


def _expected_ids(images: _Images, shards: Sequence[str]) -> np.ndarray:
    keys = images.rows.column("key").to_pylist()
    ends = np.searchsorted(images.codes, np.arange(len(shards)), side="right")
    starts = [0, *ends[:-1]]
    ids = [image_ids(shard, keys[a:b]) for shard, a, b in zip(shards, starts, ends, strict=True)]
    return np.array([image for of_shard in ids for image in of_shard], np.int64)


def _check_labels(images: _Images, labels: _Labels, ranking: Ranking | None) -> Iterator[Problem]:
    rows, of_images = labels.rows, images.places
    if not len(of_images):
        return
    owners = np.minimum(np.searchsorted(of_images, labels.places), len(of_images) - 1)
    is_owned = (of_images[owners] == labels.places) & (
        _numbers(images.rows, "image_id")[owners] == _numbers(rows, "image_id")
    )
    is_labelled = _mask(pc.equal(images.rows.column("status"), LABELLED))
    counts = np.bincount(owners[is_owned], minlength=len(of_images))
    probability = _numbers(rows, "first_token_prob")
    for table, is_wrong, message in (
        ("labels", ~is_owned, "are of no image in this file"),
        ("labels", is_owned & ~is_labelled[owners], "are of an image that is not labelled"),
        ("images", counts != _numbers(images.rows, "n_labels"), "have another n_labels than there are labels"),
        ("labels", ~((probability >= 0) & (probability <= _MOST_PROBABLE)), "have a first_token_prob outside 0 to 1"),
        *(("labels", *found) for found in _order_faults(rows, owners, ranking)),
    ):
        if is_wrong.any():
            of = images.rows if table == "images" else rows
            yield Problem(table, "rows", f"{_which(of, is_wrong)} {message}")


def _order_faults(rows: pa.Table, owners: np.ndarray, ranking: Ranking | None) -> Iterator[tuple[np.ndarray, str]]:
    """Labels that break the order of ranks or scores, or stand twice at an image."""
    ranks, scores = _numbers(rows, "rank"), _numbers(rows, "score")
    order = np.lexsort((ranks, owners))
    is_next = np.zeros(len(order), bool)
    is_next[1:] = owners[order][1:] == owners[order][:-1]
    before = np.roll(order, 1)
    yield (
        _at(order, ranks[order] != np.where(is_next, ranks[before] + 1, 1)),
        "break the ranks 1, 2, 3, ... of an image",
    )
    if ranking is not None and ranking.is_sorted:
        is_kept = scores[order] >= scores[before] if ranking.lowest_first else scores[order] <= scores[before]
        side = "below" if ranking.lowest_first else "above"
        yield _at(order, is_next & ~is_kept), f"score {side} a better rank ({ranking.name})"
    texts = rows.column("label").combine_chunks()
    codes = (texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()).indices.to_numpy()
    order = np.lexsort((codes, owners))
    is_same = (codes[order] == codes[np.roll(order, 1)]) & (owners[order] == owners[np.roll(order, 1)])
    is_same[:1] = False
    yield _at(order, is_same), "repeat a label of their image"


def _at(order: np.ndarray, is_wrong: np.ndarray) -> np.ndarray:
    """What holds of sorted rows, in the order of the rows themselves."""
    found = np.zeros(len(order), bool)
    found[order] = is_wrong
    return found


def _which(rows: pa.Table, is_wrong: np.ndarray) -> str:
    first = rows.slice(int(is_wrong.argmax()), 1).select(["shard", "index"]).to_pylist()[0]
    return f"{int(is_wrong.sum()):,} rows (the first: shard {first['shard']}, index {first['index']})"


def _codes(rows: pa.Table, shards: pa.Array) -> np.ndarray:
    """Of each row, which of the shards it is of; -1 for another."""
    found = pc.index_in(rows.column("shard").cast(pa.string()), value_set=shards)
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def _places(codes: np.ndarray, rows: pa.Table) -> np.ndarray:
    return (codes << 32) + _numbers(rows, "index").astype(np.int64)


def _numbers(rows: pa.Table, column: str) -> np.ndarray:
    return rows.column(column).to_numpy()


def _mask(values: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(values, False).to_numpy()
