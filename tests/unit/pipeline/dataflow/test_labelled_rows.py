"""Listed labels of a batch as its rows have them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dataflow.labelled_rows import rank_listed
from tests.fixtures.stored.lists import name_list

ANIMALS, FLOWERS = name_list("animals", "cat", "dog", top=1), name_list("flowers", "rose")


def test_the_labels_of_one_list_stand_together_the_best_first() -> None:
    scores = [np.log([[0.2, 0.4], [0.5, 0.1]]), np.log([[0.3], [0.6]])]
    found = rank_listed([ANIMALS, FLOWERS], scores, 2)
    assert [[(label["list"], label["label"]) for label in image] for image in found] == [
        [(ANIMALS.version, "dog"), (FLOWERS.version, "rose")],
        [(ANIMALS.version, "cat"), (FLOWERS.version, "rose")],
    ]
    assert [label["score"] for image in found for label in image] == pytest.approx([0.4, 0.3, 0.5, 0.6])


def test_without_lists_no_image_has_listed_labels() -> None:
    assert rank_listed([], (), 2) == [[], []]
