"""What is true of a run's images, under the names of the store's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from pipeline.catalog.connection import Connection, add_table, read_sql
from pipeline.errors import TagstreamError
from pipeline.naming.nouns import nouns_of

TruthKind = Literal["labels", "captions", "reviews"]
GivenTruth = Literal["labels", "captions"]
_CAPTIONS_AT_ONCE = 10_000
_TRUE = pa.schema([("image_id", pa.int64()), ("shard", pa.string()), ("label", pa.string())])


@dataclass(frozen=True, slots=True)
class NamedTruth:
    """Labels and truth of runs under their names, as tables of the connection; `name_labels` makes it, and
    `pipeline.analysis.reviewed.name_reviews`.

    A connection has one at a time: the next takes over its tables.
    """

    connection: Connection
    runs: tuple[str, ...]
    """The runs whose labels have names. The truth is that of the first run's images."""
    truth: TruthKind
    n_images: int
    """Labelled images of the first run that have a truth; 0 where nothing that is true can be found. Of reviews, images
    on which anything was judged."""
    n_without_noun: int = 0
    """Labelled images of the first run whose captions have no noun, where nouns of captions are the truth."""


def name_labels(connection: Connection, runs: Sequence[str], truth: GivenTruth) -> NamedTruth:
    """Gives names, of the vocabulary that the store was opened with, to what one or two runs list and what is true.

    Args:
        truth: "labels" that were given, or nouns of the "captions".
    """
    if truth == "labels":
        connection.execute(read_sql("true_labels"), {"run": runs[0]})
    else:
        add_table(connection, "true_labels", _nouns_of_captions(connection, runs[0]))
    connection.execute(read_sql("names"))
    connection.execute(read_sql("true_names"))
    connection.execute(read_sql("folded_images"), {"run_a": runs[0], "run_b": runs[-1]})
    connection.execute(read_sql("listed"))
    ((n_images,),) = connection.execute(
        "SELECT count(*) FROM judged WHERE EXISTS (SELECT * FROM true_names)"
    ).fetchall()
    n_without = 0
    if truth == "captions":
        ((n_without,),) = connection.execute(read_sql("images_without_noun"), {"run": runs[0]}).fetchall()
    return NamedTruth(connection, tuple(runs), truth, int(n_images), int(n_without))


def no_truth(run: str, truth: GivenTruth, kinds: str = "open") -> TagstreamError:
    """The error of a run whose images have no truth, among the labels of these kinds."""
    if kinds == "listed":
        return TagstreamError(f"nothing that is true of the images of run {run} ({truth}) is a name of the list")
    missing = {"labels": "given labels (`labels` in .json)", "captions": "captions with nouns"}[truth]
    return TagstreamError(f"no image of run {run} has {missing}; recall needs a truth")


def _nouns_of_captions(connection: Connection, run: str) -> pa.Table:
    captions = connection.sql(read_sql("captions"), params={"run": run}).to_arrow_reader(_CAPTIONS_AT_ONCE)
    return pa.concat_tables([_TRUE.empty_table(), *map(_nouns, captions)])


def _nouns(batch: pa.RecordBatch) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {"image_id": row["image_id"], "shard": row["shard"], "label": noun}
        for row in batch.to_pylist()
        for noun in nouns_of(row["caption"])
    ]
    return pa.Table.from_pylist(rows, _TRUE)
