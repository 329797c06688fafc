"""Rows of samples that were labelled again, put among those of their shard."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from pipeline.labelling.retry import merge_rows
from schemas import IMAGES, LABELS
from tests.fixtures.stored.tables import shard_tables

KEYS = [f"k{index}" for index in range(5)]


def tables(keys: list[str], **changed: Any) -> tuple[pa.Table, pa.Table]:
    """Images and two labels of each."""
    images, labels = shard_tables("s", len(keys), keys=keys)
    for name, value in changed.items():
        column = pa.array([value] * images.num_rows, images.schema.field(name).type)
        images = images.set_column(images.schema.get_field_index(name), images.schema.field(name), column)
    return images, labels


def test_rows_that_came_back_stand_at_the_index_and_with_the_id_of_their_former_rows() -> None:
    stored = tables(KEYS)
    images, labels = merge_rows(stored, tables(["k1", "k3"], width=7), (1, 3))
    assert images["key"].to_pylist() == KEYS
    assert images["index"].to_pylist() == [0, 1, 2, 3, 4]
    assert images["image_id"].equals(stored[0]["image_id"])
    assert images["width"].to_pylist() == [96, 7, 96, 7, 96]
    assert labels.select(["index", "rank", "image_id"]).equals(stored[1].select(["index", "rank", "image_id"]))


def test_labels_of_a_sample_that_had_none_are_put_in_their_place() -> None:
    images, labels = tables(KEYS)
    rejected = labels.filter(pa.compute.not_equal(labels["index"], 2))
    _, merged = merge_rows((images, rejected), tables(["k2"]), (2,))
    assert merged.equals(labels)


def test_labels_of_a_sample_that_has_none_any_more_are_gone() -> None:
    stored = tables(KEYS)
    images, labels = tables(["k2"])
    _, merged = merge_rows(stored, (images, labels.slice(0, 0)), (2,))
    assert sorted(set(merged["index"].to_pylist())) == [0, 1, 3, 4]


def test_a_stranger_at_the_place_of_a_sample_changes_nothing() -> None:
    stored = tables(KEYS)
    images, labels = merge_rows(stored, tables(["k1", "stranger"], width=7), (1, 3))
    assert images["key"].to_pylist() == KEYS
    assert images["width"].to_pylist() == [96, 7, 96, 96, 96]
    assert labels.equals(stored[1])


@pytest.mark.parametrize("wanted", [(), (0, 4)])
def test_where_nothing_came_back_all_stays(wanted: tuple[int, ...]) -> None:
    stored = tables(KEYS)
    images, labels = merge_rows(stored, (IMAGES.empty_table(), LABELS.empty_table()), wanted)
    assert images.equals(stored[0])
    assert labels.equals(stored[1])
