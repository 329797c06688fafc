"""Listed labels of a batch as its rows have them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.actor.labelled_rows import rank_listed
from pipeline.naming.name_list import NameList
from tests.fixtures.stored.lists import name_list

ANIMALS, FLOWERS = name_list("animals", "cat", "dog", top=1), name_list("flowers", "rose")


def by_image(lists: list[NameList], scores: list[Any], n_images: int) -> list[list[dict[str, Any]]]:
    """The labels of each image, cut out of the column."""
    listed = rank_listed(lists, scores, n_images)
    ends, labels = listed.n_labels.cumsum().tolist(), listed.labels.to_pylist()
    return [labels[end - count : end] for end, count in zip(ends, listed.n_labels.tolist(), strict=True)]


def test_the_labels_of_one_list_stand_together_the_best_first() -> None:
    scores = [np.log([[0.2, 0.4], [0.5, 0.1]]), np.log([[0.3], [0.6]])]
    found = by_image([ANIMALS, FLOWERS], scores, 2)
    assert [[(label["list"], label["label"]) for label in image] for image in found] == [
        [(ANIMALS.version, "dog"), (FLOWERS.version, "rose")],
        [(ANIMALS.version, "cat"), (FLOWERS.version, "rose")],
    ]
    assert [label["score"] for image in found for label in image] == pytest.approx([0.4, 0.3, 0.5, 0.6])


def test_without_lists_no_image_has_listed_labels() -> None:
    assert by_image([], [], 2) == [[], []]
    assert by_image([], [], 0) == []


def test_without_images_there_are_no_listed_labels() -> None:
    assert by_image([ANIMALS], [np.empty((0, 2))], 0) == []


def listed_slowly(lists: list[NameList], log_probs: list[np.ndarray], image: int) -> list[dict[str, Any]]:
    """One image's listed labels, name by name."""
    found = []
    for of_list, scores in zip(lists, log_probs, strict=True):
        ranked = sorted(zip(of_list.names, scores[image], strict=True), key=lambda scored: -scored[1])
        kept = [(name, np.exp(score)) for name, score in ranked[: of_list.top or None]]
        found += [
            {"list": of_list.version, "label": name, "score": float(score)}
            for name, score in kept
            if score >= np.float32(of_list.min_score)
        ]
    return found


@pytest.mark.parametrize(("top", "min_score"), [(0, 0.0), (3, 0.0), (0, 0.3), (4, 0.2), (1, 1.0)])
def test_a_batch_has_the_listed_labels_that_its_images_have_name_by_name(top: int, min_score: float) -> None:
    rng = np.random.default_rng(top)
    many = replace(name_list("many", *(f"name {number}" for number in range(40))), top=top, min_score=min_score)
    lists = [many, ANIMALS, replace(FLOWERS, min_score=0.9)]
    # A few values alone: names of one score stand in the list's order.
    scores = [np.log(rng.choice(np.array([0.1, 0.2, 0.3, 0.95], np.float32), (9, len(one.names)))) for one in lists]
    assert by_image(lists, scores, 9) == [listed_slowly(lists, scores, image) for image in range(9)]
