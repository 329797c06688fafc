"""Puts the rows of a shard together again, whatever order its batches come back in, and makes the store's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.images.views import is_nearly_square
from pipeline.actor.rows import FAILED_SHARD, STAGES
from pipeline.errors import StorageError, TagstreamError
from pipeline.reuse.copying import Marks, share_labels
from pipeline.store.ledger import count_shared
from schemas import IMAGES, LABELLED, LABELS, LISTED
from schemas.identity import image_ids

_MAX_FAILURES_IN_A_ROW = 10


@dataclass(frozen=True, slots=True)
class WholeShard:
    """All rows of a shard, as the two tables that are committed."""

    name: str
    images: pa.Table
    """One row an image, of schema `schemas.IMAGES`, in the order of `index`."""
    labels: pa.Table
    """One row a label, of schema `schemas.LABELS` or LABELS_OF_VIEWS, in the order of `index` and `rank`."""
    source_size: int | None
    """Bytes of the shard's file when it was read; None where the source does not say."""
    source_etag: str | None
    """Version of the shard's file when it was read; None where the source does not say."""
    seconds: dict[str, float]
    """Busy seconds of the workers by stage: read, decode, infer."""
    listed: Mapping[str, pa.Table | None] = field(default_factory=dict)
    """By list one row a listed label, of schema `schemas.LISTED`, in the order of `index` and `rank`. A list that is
    not here has no such labels; None stands for one that the shard is to lack."""
    n_strange: int = 0
    """Number of images that are strange to the demo model."""
    why_copied: str | None = None
    """Why an actor's branches copied their image's tokens; None where all shared them."""
    marks: Marks | None = None
    """The images that are to get the labels of others of the same content; None where no labels are reused. Those that
    look like another have its labels already."""

    @property
    def n_reused(self) -> int:
        """Number of labelled images that have the labels of another of the same content."""
        return count_shared(self.images)[0]

    @property
    def n_near_duplicates(self) -> int:
        """Number of labelled images that have the labels of another that looks alike."""
        return count_shared(self.images)[1]

    @property
    def n_labelled(self) -> int:
        """Number of images that were not rejected."""
        return int(pc.sum(pc.equal(self.images.column("status"), LABELLED)).as_py() or 0)

    @property
    def n_flat(self) -> int:
        """Number of images that showed the model one colour alone; 0 where the run's images do not tell."""
        is_told = "flat" in self.images.column_names
        return int(pc.sum(self.images.column("flat")).as_py() or 0) if is_told else 0

    @property
    def n_long(self) -> int:
        """Number of labelled images that one square in the middle does not show nearly all of."""
        # Not by a filter, which takes ten times as long where shards are small.
        width, height = (pc.fill_null(self.images.column(name), 1).to_numpy() for name in ("width", "height"))
        is_labelled = pc.equal(self.images.column("status"), LABELLED).to_numpy()
        return int((is_labelled & ~is_nearly_square(width, height)).sum())


@dataclass(slots=True)
class _OpenShard:
    tables: list[pa.Table] = field(default_factory=list)
    n_rows: int = 0
    n_samples: int | None = None


class ShardAssembler:
    """Collects label rows until a shard is whole. Memory holds open shards, nothing of those that are done.

    Rows are to be taken through `without_failed` first.

    Args:
        images, labels: the columns of the run's images and of its labels.
    """

    def __init__(self, images: pa.Schema = IMAGES, labels: pa.Schema = LABELS) -> None:
        self._images, self._labels = images, labels
        self._open: dict[str, _OpenShard] = {}
        self.failures: dict[str, str] = {}
        """Why shards cannot be read, by their names."""
        self._n_in_a_row = 0

    @property
    def n_open(self) -> int:
        return len(self._open)

    def add(self, rows: pa.Table) -> list[WholeShard]:
        """Takes rows of `pipeline.actor.labeler.LABELLED_ROWS` and returns the shards that became whole."""
        whole = []
        for name, of_shard in _split_by_shard(rows):
            shard = self._open.setdefault(name, _OpenShard())
            shard.tables.append(of_shard)
            shard.n_rows += of_shard.num_rows
            if (n_samples := pc.max(of_shard.column("n_samples")).as_py()) is not None:
                shard.n_samples = n_samples
            if shard.n_rows == shard.n_samples:
                tables = self._open.pop(name).tables
                whole.append(make_whole(name, pa.concat_tables(tables), self._images, self._labels))
                self._n_in_a_row = 0
        return whole

    def without_failed(self, rows: pa.Table) -> pa.Table:
        """The rows without those of shards that cannot be read, which are noted.

        Raises StorageError where shard after shard cannot be read: then it is the storage, and no shard of it.
        """
        failed = rows.filter(pc.equal(rows.column("index"), FAILED_SHARD))
        for name, message in zip(failed["shard"].to_pylist(), failed["message"].to_pylist(), strict=True):
            self.failures[name] = message
            self._open.pop(name, None)
            self._n_in_a_row += 1
            if self._n_in_a_row == _MAX_FAILURES_IN_A_ROW:
                raise StorageError(f"{_MAX_FAILURES_IN_A_ROW} shards in a row cannot be read, the last: {message}")
        if not self.failures:
            return rows
        names = pa.array(list(self.failures), pa.string())
        return rows.filter(pc.invert(pc.is_in(rows.column("shard"), names)))


def _split_by_shard(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Parts of the rows that have one shard each. A batch's rows stand together, so that nothing has to be copied."""
    shards = rows.column("shard").combine_chunks().dictionary_encode()
    places = shards.indices.to_numpy()
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    for start, stop in pairwise([*starts.tolist(), len(places)]):
        yield shards.dictionary[places[start]].as_py(), rows.slice(start, stop - start)


def make_whole(name: str, rows: pa.Table, images: pa.Schema = IMAGES, labels: pa.Schema = LABELS) -> WholeShard:
    """The tables of a shard from all of its rows. Raises TagstreamError where a row is missing or there twice.

    Args:
        images, labels: the columns of the run's images and of its labels.
    """
    rows = rows.combine_chunks()
    in_order = np.arange(rows.num_rows)
    if not np.array_equal(rows.column("index"), in_order):
        rows = rows.sort_by("index").combine_chunks()
        if not np.array_equal(rows.column("index"), in_order):
            raise TagstreamError(f"shard {name} came back with rows missing or repeated; this is a fault of tagstream")
    ids = pa.array(image_ids(name, rows.column("key").to_pylist()), pa.int64())
    found, told = rows.column("labels").combine_chunks(), set(rows.column_names)
    columns = {
        **{column: rows.column(column) for column in images.names if column in told},
        "image_id": ids,
        "n_labels": pc.list_value_length(found).cast(pa.int16()),
        # Known once the labels of others have been fetched.
        "reused_from": pa.nulls(rows.num_rows, pa.int64()),
        "reused_run": pa.nulls(rows.num_rows, pa.string()),
        "reused_distance": pa.nulls(rows.num_rows, pa.int8()),
    }
    tables = share_labels(
        pa.table([columns[column] for column in images.names], schema=images),
        _ranked(rows, ids, pc.list_parent_indices(found), found.flatten(), labels),
        _find_marks(rows, are_near=True),
    )
    return WholeShard(
        name,
        *tables,
        pc.max(rows.column("source_size")).as_py(),
        pc.max(rows.column("source_etag")).as_py(),
        {stage: pc.sum(rows.column(f"{stage}_s")).as_py() for stage in STAGES},
        _listed_tables(rows, ids),
        pc.sum(rows.column("is_strange")).as_py() or 0,
        pc.max(rows.column("why_copied")).as_py(),
        _find_marks(rows, are_near=False),
    )


def _find_marks(rows: pa.Table, *, are_near: bool) -> Marks | None:
    """The rows that are to get labels of other images; None where there are none.

    Args:
        are_near: of images that look alike; otherwise of images of the same content.
    """
    is_near = pc.is_valid(rows["known_distance"])
    wanted = is_near if are_near else pc.and_not(pc.is_valid(rows["known_shard"]), is_near)
    names = ["index", "known_shard", "known_index", *(["known_distance"] if are_near else [])]
    marked = rows.select(names).filter(wanted)
    return Marks(*(column.to_numpy() for column in marked.columns)) if marked.num_rows else None


def count_marked(rows: pa.Table) -> tuple[int, int]:
    """How many rows of `LABELLED_ROWS` are to get labels of others: of equal content, and of such that look alike."""
    n_marked, n_near = (rows.num_rows - rows[name].null_count for name in ("known_shard", "known_distance"))
    return n_marked - n_near, n_near


def _listed_tables(rows: pa.Table, ids: pa.Array) -> dict[str, pa.Table]:
    """The listed labels of each list."""
    listed = rows.column("listed").combine_chunks()
    parents, flat = pc.list_parent_indices(listed), listed.flatten()
    lists = flat.field("list")
    tables = {}
    for version in pc.unique(lists).to_pylist():
        is_of_list = pc.equal(lists, version)
        tables[version] = _ranked(rows, ids, parents.filter(is_of_list), flat.filter(is_of_list), LISTED)
    return tables


def _ranked(rows: pa.Table, ids: pa.Array, parents: pa.Array, flat: pa.StructArray, schema: pa.Schema) -> pa.Table:
    """A table of labels, those of an image together and the best first.

    Args:
        rows: one an image. ids: image_id of each.
        parents: the row of each label's image.
        flat: the labels.
    """
    owners = parents.to_numpy()
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    ranks = np.arange(len(owners)) - np.repeat(starts, np.diff(starts, append=len(owners))) + 1
    columns = {
        "image_id": ids.take(parents),
        "shard": rows.column("shard").combine_chunks().take(parents),
        "index": rows.column("index").combine_chunks().take(parents),
        "rank": pa.array(ranks, pa.int16()),
        **{name: flat.field(name) for name in schema.names if name in flat.type.names},
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)
