"""Rows of images that get the labels of another one: of the same content, or of one that looks alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StoreError
from pipeline.reuse.marking import SAME_SHARD
from pipeline.reuse.stored_images import Rows
from schemas import REJECTED

# What an image has of the one whose labels it gets. A fault is that of the bytes where the other was rejected.
_OF_CONTENT = ("status", "width", "height", "n_labels", "n_unfinished")
_FAULTS = ("stage", "error", "message")


@dataclass(frozen=True, slots=True)
class Marks:
    """Which rows of a shard get the labels of which image; equally long."""

    index: np.ndarray
    """Of the row in its shard."""
    shard: np.ndarray
    """Number of the other image's shard, or SAME_SHARD."""
    of: np.ndarray
    """Index of the other image in its shard."""
    distance: np.ndarray | None = None
    """In how many bits the hashes of the two differ; None where they are of the same content."""

    def of_shard(self, number: int) -> Marks:
        """Those that are of one shard."""
        chosen = self.shard == number
        return Marks(self.index[chosen], self.shard[chosen], self.of[chosen])


def copy_labels(
    images: pa.Table,
    labels: pa.Table,
    marks: Marks,
    read: Callable[[int, list[int]], Rows],
    name_run: Callable[[int, str | None], str | None],
) -> Rows:
    """A shard's images and labels, in which the marked images have what the images of the same content have.

    Args:
        images: all of the shard, one row an index from 0 on; of `schemas.IMAGES_OF_REUSE` or IMAGES_OF_HASHES.
        labels: of those that are not marked.
        read: rows of images and labels of a shard, by its number and indexes there.
        name_run: what a row says of the run of a shard: by its number, and by what the row says itself that is copied.

    Raises StoreError where an image is another one than its mark says.
    """
    if not len(marks.index):
        return images, labels
    copied, added = [], [labels]
    for number in np.unique(marks.shard).tolist():
        of_shard = marks.of_shard(number)
        found = (images, labels) if number == SAME_SHARD else read(number, of_shard.of.tolist())
        rows = _copy_images(images, found[0], of_shard, partial(name_run, number))
        copied.append(rows)
        added.append(_copy_labels(rows, found[1], of_shard, labels.schema))
    return _with_rows(images, copied), _in_order(added)


def share_labels(images: pa.Table, labels: pa.Table, marks: Marks | None) -> tuple[pa.Table, pa.Table]:
    """A shard's images and labels, in which the marked images have the labels of those of the shard they look like.

    Args:
        images: all of the shard, one row an index from 0 on; of `schemas.IMAGES_OF_HASHES` where any are marked.
        labels: of those that are not marked.
        marks: of images of the same shard, which are not marked themselves; None where there are none.
    """
    if marks is None:
        return images, labels
    own, other = images.take(pa.array(marks.index)), images.take(pa.array(marks.of))
    columns = {name: own[name] for name in images.column_names}
    columns |= {name: other[name] for name in ("n_labels", "n_unfinished")}
    columns |= {"reused_from": other["image_id"], "reused_distance": pa.array(marks.distance, pa.int8())}
    rows = pa.table(columns, schema=images.schema)
    return _with_rows(images, [rows]), _in_order([labels, _copy_labels(rows, labels, marks, labels.schema)])


def _with_rows(images: pa.Table, others: Sequence[pa.Table]) -> pa.Table:
    """A shard's images, in which other rows stand at their indexes."""
    taken = np.arange(images.num_rows)
    of_rows = np.concatenate([rows["index"].to_numpy() for rows in others])
    taken[of_rows] = images.num_rows + np.arange(len(of_rows))
    return pa.concat_tables([images, *others]).take(pa.array(taken)).combine_chunks()


def _in_order(parts: Sequence[pa.Table]) -> pa.Table:
    """Labels of a shard, those of an image together and the best first."""
    return pa.concat_tables(parts).sort_by([("index", "ascending"), ("rank", "ascending")]).combine_chunks()


def _copy_images(
    images: pa.Table, others: pa.Table, marks: Marks, name_run: Callable[[str | None], str | None]
) -> pa.Table:
    """Rows of the marked images."""
    own = images.take(pa.array(marks.index))
    others = others.sort_by("index").combine_chunks()
    indexes = others["index"].to_numpy()
    at = np.searchsorted(indexes, marks.of)
    is_there = np.isin(marks.of, indexes).all()
    other = others.take(pa.array(at)) if is_there else None
    if other is None or not other["content_hash"].combine_chunks().equals(own["content_hash"].combine_chunks()):
        raise StoreError(
            f"shard {own['shard'][0]} was to reuse labels of images that are others now, since their shard was "
            "labelled again; run the command again"
        )
    is_rejected = pc.equal(other["status"], REJECTED)
    columns = {name: own[name] for name in own.column_names}
    columns |= {name: other[name] for name in _OF_CONTENT}
    columns |= {name: pc.if_else(is_rejected, other[name], own[name]) for name in _FAULTS}
    columns["flat"] = other["flat"] if "flat" in other.column_names else pa.nulls(len(at), pa.bool_())
    columns["reused_from"], columns["reused_run"] = other["image_id"], pa.nulls(len(at), pa.string())
    said = pa.nulls(len(at), pa.string())
    if "reused_from" in other.column_names:
        # Not of the copy, but of the image that was labelled.
        columns["reused_from"], said = pc.coalesce(other["reused_from"], other["image_id"]), other["reused_run"]
    columns["reused_run"] = pa.array([name_run(run) for run in said.to_pylist()], pa.string())
    if "phash" in columns:
        # Nobody has looked at the copy. What it is copied from may itself have the labels of one that looks alike.
        told = set(other.column_names)
        columns |= {
            name: other[name] if name in told else pa.nulls(len(at), images.schema.field(name).type)
            for name in ("phash", "reused_distance")
        }
    return pa.table([columns[name] for name in images.column_names], schema=images.schema)


def _copy_labels(rows: pa.Table, labels: pa.Table, marks: Marks, schema: pa.Schema) -> pa.Table:
    """Labels of the rows of images that were copied."""
    labels = labels.sort_by([("index", "ascending"), ("rank", "ascending")])
    indexes = labels["index"].to_numpy()
    first, end = np.searchsorted(indexes, marks.of), np.searchsorted(indexes, marks.of, side="right")
    counts = end - first
    owners = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    copied = labels.take(pa.array(first[owners] + within))
    columns = {
        **{name: copied[name] for name in schema.names},
        **{name: rows[name].take(pa.array(owners)) for name in ("image_id", "shard", "index")},
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)
