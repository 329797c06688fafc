"""Rows that get the labels of images of the same content."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import StoreError
from pipeline.reuse.copying import Marks, copy_labels, share_labels
from pipeline.reuse.marking import SAME_SHARD
from schemas import IMAGES, IMAGES_OF_HASHES, IMAGES_OF_REUSE, LABELS, REJECTED, content_hash, image_id


def images_of(shard: str, contents: str, **changed: dict[int, object]) -> pa.Table:
    rows = []
    for index, content in enumerate(contents):
        row = {
            "image_id": image_id(shard, str(index)),
            "shard": shard,
            "index": index,
            "key": str(index),
            "status": "labelled",
            "width": 10 + index,
            "height": 5,
            "n_bytes": 1,
            "content_hash": content_hash(content.encode()),
            "caption": f"{shard} {index}",
            "n_labels": 0,
            "n_unfinished": 0,
            "flat": False,
        }
        rows.append(row | {name: of_rows[index] for name, of_rows in changed.items() if index in of_rows})
    return pa.Table.from_pylist(rows, schema=IMAGES_OF_REUSE)


def labels_of(images: pa.Table, found: dict[int, list[str]]) -> tuple[pa.Table, pa.Table]:
    """Images with counts of their labels, and these labels, in no order."""
    rows = [
        {
            "image_id": images["image_id"][index].as_py(),
            "shard": images["shard"][index].as_py(),
            "index": index,
            "rank": rank,
            "label": label,
            "score": 1 / rank,
            "first_token_prob": 0.5,
            "n_tokens": 2,
        }
        for index, labels in found.items()
        for rank, label in reversed(list(enumerate(labels, 1)))
    ]
    counts = pa.array([len(found.get(index, ())) for index in range(images.num_rows)], pa.int16())
    images = images.set_column(images.column_names.index("n_labels"), IMAGES_OF_REUSE.field("n_labels"), counts)
    return images, pa.Table.from_pylist(rows, schema=LABELS)


def marks(*triples: tuple[int, int, int]) -> Marks:
    return Marks(*(np.array(column, np.int64) for column in zip(*triples, strict=True)))


def named(labels: pa.Table) -> list[tuple[int, int, str]]:
    return [(row["index"], row["rank"], row["label"]) for row in labels.to_pylist()]


STORED = {
    3: labels_of(images_of("third", "xyz"), {0: ["sky"], 1: ["cat", "dog", "sea"], 2: []}),
    5: labels_of(
        images_of("fifth", "pq", reused_from={1: 77}, reused_run={1: "far"}), {0: ["tree"], 1: ["cup", "key"]}
    ),
}


def copy(images: pa.Table, labels: pa.Table, of: Marks) -> tuple[pa.Table, pa.Table]:
    return copy_labels(
        images, labels, of, lambda number, _: STORED[number], lambda number, said: said or f"run{number}"
    )


def test_a_row_gets_labels_and_what_bytes_decide_and_keeps_what_is_its_own() -> None:
    own = labels_of(images_of("own", "ayap"), {0: ["red"]})
    images, labels = copy(*own, marks((1, 3, 1), (2, SAME_SHARD, 0), (3, 5, 0)))
    assert named(labels) == [
        (0, 1, "red"),
        (1, 1, "cat"),
        (1, 2, "dog"),
        (1, 3, "sea"),
        (2, 1, "red"),
        (3, 1, "tree"),
    ]
    ids = [image_id("own", str(index)) for index in range(4)]
    assert labels["image_id"].to_pylist() == [ids[0], *[ids[1]] * 3, ids[2], ids[3]]
    assert set(labels["shard"].to_pylist()) == {"own"}
    rows = images.to_pylist()
    assert [row["width"] for row in rows] == [10, 11, 10, 10]
    assert [row["n_labels"] for row in rows] == [1, 3, 1, 1]
    assert [row["image_id"] for row in rows] == ids
    assert [row["caption"] for row in rows] == ["own 0", "own 1", "own 2", "own 3"]
    assert [row["reused_from"] for row in rows] == [None, image_id("third", "1"), ids[0], image_id("fifth", "0")]
    assert [row["reused_run"] for row in rows] == [None, "run3", "run-1", "run5"]


def test_of_a_copy_the_image_is_named_that_was_labelled() -> None:
    images, labels = copy(*labels_of(images_of("own", "q"), {}), marks((0, 5, 1)))
    assert (images["reused_from"].to_pylist(), images["reused_run"].to_pylist()) == ([77], ["far"])
    assert named(labels) == [(0, 1, "cup"), (0, 2, "key")]


def test_a_rejected_image_of_the_shard_gives_its_fault_and_side_files_give_theirs_to_no_other() -> None:
    faults = {"stage": {0: "decode", 1: "read"}, "error": {0: "ImageUnreadable", 1: "SideFileUnreadable"}}
    own = images_of("own", "bcbc", status={0: REJECTED}, message={0: "broken", 1: "no caption"}, **faults)
    images, _ = copy(*labels_of(own, {1: ["red"]}), marks((2, SAME_SHARD, 0), (3, SAME_SHARD, 1)))
    assert images["status"].to_pylist() == [REJECTED, "labelled", REJECTED, "labelled"]
    assert images["error"].to_pylist() == ["ImageUnreadable", "SideFileUnreadable", "ImageUnreadable", None]
    assert images["message"].to_pylist() == ["broken", "no caption", "broken", None]


def near(*triples: tuple[int, int, int]) -> Marks:
    index, of, distance = (np.array(column, np.int64) for column in zip(*triples, strict=True))
    return Marks(index, np.full(len(index), SAME_SHARD), of, distance)


def test_images_that_look_alike_share_labels_and_keep_what_is_their_own() -> None:
    images, labels = labels_of(images_of("own", "abcd"), {0: ["red", "sea"], 2: ["cup"]})
    empty = {name: pa.nulls(4, IMAGES_OF_HASHES.field(name).type) for name in ("phash", "reused_distance")}
    images = pa.table({**dict(zip(images.column_names, images.columns, strict=True)), **empty}, schema=IMAGES_OF_HASHES)
    shared, found = share_labels(images, labels, near((3, 0, 4), (1, 2, 0)))
    assert named(found) == [(0, 1, "red"), (0, 2, "sea"), (1, 1, "cup"), (2, 1, "cup"), (3, 1, "red"), (3, 2, "sea")]
    ids = images["image_id"].to_pylist()
    assert shared["reused_from"].to_pylist() == [None, ids[2], None, ids[0]]
    assert shared["reused_distance"].to_pylist() == [None, 0, None, 4]
    assert shared["n_labels"].to_pylist() == [2, 1, 1, 2]
    own = ["image_id", "key", "width", "content_hash", "caption", "reused_run"]
    assert shared.select(own) == images.select(own)


def test_images_of_runs_without_the_columns_of_reuse_are_copied_too() -> None:
    former = (STORED[3][0].select([name for name in IMAGES.names if name != "flat"]), STORED[3][1])
    own = labels_of(images_of("own", "y"), {})
    images, _ = copy_labels(*own, marks((0, 3, 1)), lambda *_: former, lambda *_: "before")
    assert images["reused_from"].to_pylist() == [image_id("third", "1")]
    assert images["flat"].to_pylist() == [None]


@pytest.mark.parametrize("of", [(0, 3, 0), (0, 3, 9)])
def test_an_image_of_another_content_or_none_is_never_copied(of: tuple[int, int, int]) -> None:
    with pytest.raises(StoreError, match="others now"):
        copy(*labels_of(images_of("own", "y"), {}), marks(of))
