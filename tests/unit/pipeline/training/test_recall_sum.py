"""Recall at k against a slow count with lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.recall_sum import RECALL_AT, RecallSum, normalised

# Few of them, so that lists and truths meet; some are one label written in two ways.
NAMES = st.sampled_from(["dog", "Dog", "hot dog", " hot  DOG", "cat", "Straße", "STRASSE", "bus", "tree", "cup", "owl"])
IMAGES = st.lists(st.tuples(st.lists(NAMES, max_size=14), st.lists(NAMES, min_size=1, max_size=8)), max_size=5)


def slow_recall(labels: list[str], truth: list[str], k: int) -> float:
    """Counts the true labels one by one."""

    def alike(one: str, other: str) -> bool:
        return one.casefold().split() == other.casefold().split()

    different: list[str] = []
    for label in truth:
        if not any(alike(label, seen) for seen in different):
            different.append(label)
    n_found = 0
    for label in different:
        if any(alike(label, listed) for listed in labels[:k]):
            n_found += 1
    return n_found / (k if k < len(different) else len(different))


def recall_of(labels: list[str], truth: list[str]) -> dict[int, float | None]:
    recall = RecallSum()
    recall.add(labels, truth)
    return {k: recall.mean(k) for k in RECALL_AT}


@given(IMAGES)
def test_the_mean_is_that_of_a_slow_count(images: list[tuple[list[str], list[str]]]) -> None:
    recall = RecallSum()
    for labels, truth in images:
        recall.add(labels, truth)
    for k in RECALL_AT:
        expected = sum(slow_recall(labels, truth, k) for labels, truth in images) / max(1, len(images))
        assert recall.mean(k) == (pytest.approx(expected, abs=1e-12) if images else None)


@given(st.lists(NAMES, max_size=14), st.lists(NAMES, min_size=1, max_size=8))
def test_it_lies_between_nothing_and_everything(labels: list[str], truth: list[str]) -> None:
    assert all(0 <= recall <= 1 for recall in recall_of(labels, truth).values())


@given(st.lists(NAMES, min_size=1, max_size=8))
def test_the_truth_itself_is_found_whole(truth: list[str]) -> None:
    different = list({normalised(label): label for label in truth}.values())
    assert recall_of(different, truth) == {1: 1.0, 5: 1.0, 10: 1.0}


def test_at_one_it_says_whether_the_best_label_is_in_the_image() -> None:
    assert recall_of(["cat", "dog"], ["dog", "cat", "bus"])[1] == 1.0
    assert recall_of(["owl", "dog", "cat", "bus"], ["dog", "cat", "bus"])[1] == 0.0


def test_more_truth_than_places_is_measured_by_the_places() -> None:
    truth = ["dog", "cat", "bus", "tree", "cup", "owl", "hot dog"]
    assert recall_of(["dog", "cat", "x", "y", "z"], truth)[5] == pytest.approx(2 / 5)


def test_a_true_label_behind_place_k_does_not_count() -> None:
    assert recall_of(["a", "b", "c", "d", "e", "dog"], ["dog"]) == {1: 0.0, 5: 0.0, 10: 1.0}


def test_a_label_that_is_listed_twice_counts_once() -> None:
    assert recall_of(["dog", "Dog"], ["dog", "cat"])[5] == 0.5


def test_case_and_blanks_make_no_other_label() -> None:
    assert recall_of([" Hot  DOG\n"], ["hot dog"])[1] == 1.0


def test_a_part_of_a_label_is_no_match() -> None:
    assert recall_of(["dog"], ["hot dog"])[10] == 0.0


def test_an_image_without_labels_counts_as_nothing_found() -> None:
    recall = RecallSum()
    recall.add([], ["dog"])
    recall.add(["dog"], ["dog"])
    assert (recall.n_images, recall.mean(10)) == (2, 0.5)


def test_without_images_there_is_no_mean() -> None:
    assert [RecallSum().mean(k) for k in RECALL_AT] == [None, None, None]


def test_two_sums_do_not_share_their_counts() -> None:
    recall, other = RecallSum(), RecallSum()
    recall.add(["dog"], ["dog"])
    assert other.sums == {1: 0.0, 5: 0.0, 10: 0.0}
