"""What can be wrong with the files of a run, found by reading all of their bytes and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.choices import RANKINGS, Ranking
from pipeline.store.digest import has_other_digest
from pipeline.store.parquet_file import read_described
from pipeline.text import one_line
from schemas import (
    FORMER_IMAGES,
    IMAGES,
    IMAGES_OF_HASHES,
    IMAGES_OF_REUSE,
    LABELLED,
    LABELS,
    LABELS_OF_VIEWS,
    READABLE_VERSIONS,
    REJECTED,
    ListRecord,
)
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
    """The table that the rows are of: images or labels."""
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
        is_expected = any(file.schema.equals(_stored_schema(known)) for known in _known_schemas(schema))
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


def _known_schemas(schema: pa.Schema) -> tuple[pa.Schema, ...]:
    """The columns that files of a table may have: those of today, and those in runs of before, with reuse, with
    perceptual hashes or with several views."""
    if schema is IMAGES:
        return (IMAGES, FORMER_IMAGES, IMAGES_OF_REUSE, IMAGES_OF_HASHES)
    return (LABELS, LABELS_OF_VIEWS) if schema is LABELS else (schema,)


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
    if (version := described.get("schema_version")) not in {str(number) for number in READABLE_VERSIONS}:
        return f"has schema version {version}; expected {' or '.join(map(str, READABLE_VERSIONS))}"
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
    numbers = {table: _shard_numbers(rows, held) for table, rows in (("images", images), ("labels", labels))}
    strange = {table: int((found < 0).sum()) for table, found in numbers.items()}
    if any(strange.values()):
        for table, count in strange.items():
            if count:
                yield Problem(table, "rows", f"{count:,} rows are of other shards than the file says it holds")
        return
    order = np.lexsort((images.column("index").to_numpy(), numbers["images"]))
    in_order = _Rows("images", images.take(pa.array(order)), numbers["images"][order])
    yield from _check_images(in_order, shards)
    yield from _check_labels(in_order, _Rows("labels", labels, numbers["labels"]), ranking)


def check_listed(
    images: pa.Table, listed: pa.Table, shards: Sequence[str], record: ListRecord | None
) -> Iterator[Problem]:
    """Whether the listed labels of a file's shards are whole and belong to their images.

    Args:
        images: of these shards, at least image_id, shard, index and status.
        shards: names of the shards that the file holds.
        record: of the list; None where that is not known.
    """
    held = pa.array(shards, pa.string())
    numbers = {table: _shard_numbers(rows, held) for table, rows in (("images", images), ("listed", listed))}
    if n_strange := int((numbers["listed"] < 0).sum()):
        yield Problem("listed", "rows", f"{n_strange:,} rows are of other shards than the file says it holds")
        return
    order = np.lexsort((images.column("index").to_numpy(), numbers["images"]))
    in_order = _Rows("images", images.take(pa.array(order)), numbers["images"][order])
    rows = _Rows("listed", listed, numbers["listed"])
    if not len(order):
        yield from rows.problem(np.ones(listed.num_rows, bool), "are of no image of the run")
        return
    owners, is_owned = _find_owners(in_order, rows)
    is_labelled = _mask(pc.equal(in_order.rows.column("status"), LABELLED))
    score = rows.column("score")
    yield from rows.problem(~is_owned, "are of no image of the run")
    yield from rows.problem(is_owned & ~is_labelled[owners], "are of an image that is not labelled")
    yield from rows.problem(~((score >= 0) & (score <= _MOST_PROBABLE)), "have a score outside 0 to 1")
    yield from _check_order(rows, owners, RANKINGS["prob"])
    if record is not None:
        names = pa.array(record.names, pa.string())
        is_known = _mask(pc.is_in(listed.column("label").cast(pa.string()), value_set=names))
        yield from rows.problem(~is_known, "have a label that is no name of the list")
        yield from rows.problem(score < np.float32(record.min_score), "have a score below the list's lowest")
        if record.top:
            yield from rows.problem(rows.column("rank") > record.top, "are more than the list keeps of an image")


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a file's images or labels, each of one of the file's shards."""

    table: str
    """The table that the rows are of: images or labels."""
    rows: pa.Table
    shards: np.ndarray
    """The number of each row's shard among those of the file, int64 [rows]."""

    @property
    def positions(self) -> np.ndarray:
        """Shard and index of each row's image as one number, int64 [rows]."""
        return (self.shards << 32) + self.column("index").astype(np.int64)

    def column(self, name: str) -> np.ndarray:
        return self.rows.column(name).to_numpy()

    def problem(self, is_wrong: np.ndarray, message: str) -> Iterator[Problem]:
        """One problem of the rows for which a mask holds, which counts them and names the first; none without any."""
        if is_wrong.any():
            (first,) = self.rows.slice(int(is_wrong.argmax()), 1).select(["shard", "index"]).to_pylist()
            which = f"{int(is_wrong.sum()):,} rows (the first: shard {first['shard']}, index {first['index']})"
            yield Problem(self.table, "rows", f"{which} {message}")


def _check_images(images: _Rows, shards: Sequence[str]) -> Iterator[Problem]:
    rows = images.rows
    counts = np.bincount(images.shards, minlength=len(shards))
    expected = np.arange(rows.num_rows) - np.repeat(np.cumsum(counts) - counts, counts)
    status = rows.column("status")
    is_known = _mask(pc.is_in(status, pa.array([LABELLED, REJECTED])))
    is_rejected = _mask(pc.equal(status, REJECTED))
    is_explained = _mask(pc.and_(*(pc.greater(pc.binary_length(rows.column(name)), 0) for name in ("stage", "error"))))
    if not counts.all():
        yield Problem("images", "rows", f"shard {shards[int(counts.argmin())]} has no rows; expected one a sample")
    yield from images.problem(
        images.column("index") != expected, "break the order of index; expected 0, 1, 2, ... in each shard"
    )
    yield from images.problem(
        images.column("image_id") != _expected_ids(images, shards),
        "have another image_id than the hash of their shard and key",
    )
    yield from images.problem(~is_known, "have another status than labelled or rejected")
    yield from images.problem(is_rejected & ~is_explained, "are rejected without stage or error")
    yield from images.problem(images.column("n_unfinished") < 0, "have a negative number of unfinished branches")


def _expected_ids(images: _Rows, shards: Sequence[str]) -> np.ndarray:
    keys = images.rows.column("key").to_pylist()
    ends = np.searchsorted(images.shards, np.arange(len(shards)), side="right")
    starts = [0, *ends[:-1]]
    ids = [image_ids(shard, keys[a:b]) for shard, a, b in zip(shards, starts, ends, strict=True)]
    return np.array([image for of_shard in ids for image in of_shard], np.int64)


def _check_labels(images: _Rows, labels: _Rows, ranking: Ranking | None) -> Iterator[Problem]:
    """Whether each label belongs to an image of the file, and an image's labels are in order.

    Args:
        images: in the order of shard and index.
    """
    if not images.rows.num_rows:
        return
    owners, is_owned = _find_owners(images, labels)
    n_owned = np.bincount(owners[is_owned], minlength=images.rows.num_rows)
    is_labelled = _mask(pc.equal(images.rows.column("status"), LABELLED))
    probability = labels.column("first_token_prob")
    is_probability = (probability >= 0) & (probability <= _MOST_PROBABLE)
    yield from labels.problem(~is_owned, "are of no image in this file")
    yield from labels.problem(is_owned & ~is_labelled[owners], "are of an image that is not labelled")
    yield from images.problem(n_owned != images.column("n_labels"), "have another n_labels than there are labels")
    yield from labels.problem(~is_probability, "have a first_token_prob outside 0 to 1")
    yield from _check_order(labels, owners, ranking)


def _find_owners(images: _Rows, labels: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """The row of each label's image, int64 [labels], and whether that is its image, bool [labels]."""
    positions = images.positions
    owners = np.minimum(np.searchsorted(positions, labels.positions), len(positions) - 1)
    is_same = positions[owners] == labels.positions
    return owners, is_same & (images.column("image_id")[owners] == labels.column("image_id"))


def _check_order(labels: _Rows, owners: np.ndarray, ranking: Ranking | None) -> Iterator[Problem]:
    """Whether ranks count up in each image, scores follow them, and no label stands twice."""
    by_rank = _Sorted.within_images(owners, labels.column("rank"))
    before, rank = by_rank.pairs(labels.column("rank"))
    is_wrong = rank != np.where(by_rank.has_before, before + 1, 1)
    yield from labels.problem(by_rank.as_rows(is_wrong), "break the ranks 1, 2, 3, ... of an image")
    if ranking is not None and ranking.is_sorted:
        before, score = by_rank.pairs(labels.column("score"))
        is_kept = score >= before if ranking.lowest_first else score <= before
        side = "below" if ranking.lowest_first else "above"
        message = f"score {side} a better rank ({ranking.name})"
        yield from labels.problem(by_rank.as_rows(by_rank.has_before & ~is_kept), message)
    texts = labels.rows.column("label").combine_chunks()
    codes = (texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()).indices.to_numpy()
    by_text = _Sorted.within_images(owners, codes)
    before, code = by_text.pairs(codes)
    yield from labels.problem(by_text.as_rows(by_text.has_before & (code == before)), "repeat a label of their image")


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Labels sorted by image and by a value, each beside the one before it."""

    order: np.ndarray
    """Numbers of the rows in their new order, int64 [labels]."""
    has_before: np.ndarray
    """Whether the sorted row before is of the same image, bool [labels]."""

    @classmethod
    def within_images(cls, owners: np.ndarray, values: np.ndarray) -> Self:
        order = np.lexsort((values, owners))
        has_before = np.zeros(len(order), bool)
        has_before[1:] = owners[order][1:] == owners[order][:-1]
        return cls(order, has_before)

    def pairs(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The value before each sorted row, and its own; the first of an image has none before, but any value."""
        own = values[self.order]
        return np.roll(own, 1), own

    def as_rows(self, holds: np.ndarray) -> np.ndarray:
        """What holds of sorted rows, in the order of the rows themselves."""
        found = np.zeros(len(self.order), bool)
        found[self.order] = holds
        return found


def _shard_numbers(rows: pa.Table, shards: pa.Array) -> np.ndarray:
    """The number of each row's shard among the shards, -1 for another, int64 [rows]."""
    found = pc.index_in(rows.column("shard").cast(pa.string()), value_set=shards)
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def _mask(values: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(values, False).to_numpy()
