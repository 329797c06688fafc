"""hit@1 and recall@k against a slow count with lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.recall_sum import MEASURES, RECALL_AT, RecallSum, describe_limits, describe_qualities, normalised

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
    return n_found / len(different)


def means_of(labels: list[str], truth: list[str]) -> dict[str, float | None]:
    recall = RecallSum()
    recall.add(labels, truth)
    return recall.means()


@given(IMAGES)
def test_the_mean_is_that_of_a_slow_count(images: list[tuple[list[str], list[str]]]) -> None:
    recall = RecallSum()
    for labels, truth in images:
        recall.add(labels, truth)
    for k in RECALL_AT:
        expected = sum(slow_recall(labels, truth, k) for labels, truth in images) / max(1, len(images))
        assert recall.means()[f"recall_{k}"] == (pytest.approx(expected, abs=1e-12) if images else None)


@given(st.lists(NAMES, max_size=14), st.lists(NAMES, min_size=1, max_size=8))
def test_it_lies_between_nothing_and_everything(labels: list[str], truth: list[str]) -> None:
    assert all(0 <= recall <= 1 for recall in means_of(labels, truth).values())


@given(st.lists(NAMES, min_size=1, max_size=8))
def test_the_truth_itself_is_found_whole(truth: list[str]) -> None:
    different = list({normalised(label): label for label in truth}.values())
    means = means_of(different, truth)
    assert means["hit_1"] == means["recall_10"] == 1.0
    # Up to its limit, where the truth has more labels than there are places.
    assert means["recall_5"] == means["recall_5_limit"]


def test_a_hit_at_one_says_whether_the_first_label_is_true() -> None:
    assert means_of(["cat", "dog"], ["dog", "cat", "bus"])["hit_1"] == 1.0
    assert means_of(["owl", "dog", "cat", "bus"], ["dog", "cat", "bus"])["hit_1"] == 0.0


def test_recall_is_of_all_true_labels_also_where_they_are_more_than_the_places() -> None:
    truth = ["dog", "cat", "bus", "tree", "cup", "owl", "hot dog"]
    means = means_of(["dog", "cat", "x", "y", "z"], truth)
    assert means["recall_5"] == pytest.approx(2 / 7)
    assert means["recall_5_limit"] == pytest.approx(5 / 7)
    assert means["recall_10_limit"] == 1.0


@given(IMAGES)
def test_recall_never_falls_with_k_and_never_exceeds_its_limit(images: list[tuple[list[str], list[str]]]) -> None:
    recall = RecallSum()
    for labels, truth in images:
        recall.add(labels, truth)
    if images:
        means = recall.means()
        assert means["recall_5"] <= means["recall_10"] <= means["recall_10_limit"] + 1e-12
        assert means["recall_5"] <= means["recall_5_limit"] + 1e-12


@given(IMAGES, IMAGES)
def test_the_sums_of_two_workers_add_up(
    images: list[tuple[list[str], list[str]]], others: list[tuple[list[str], list[str]]]
) -> None:
    mine, other, both = RecallSum(), RecallSum(), RecallSum()
    for recall, seen in ((mine, images), (other, others), (both, images + others)):
        for labels, truth in seen:
            recall.add(labels, truth)
    added = [one + another for one, another in zip(mine.totals(), other.totals(), strict=True)]
    expected = {name: mean if mean is None else pytest.approx(mean, abs=1e-12) for name, mean in both.means().items()}
    assert RecallSum.of_totals(added).means() == expected


def test_the_measures_are_told_with_the_limits_that_are_below_one() -> None:
    means = {"hit_1": 0.98, "recall_5": 0.9, "recall_10": 0.95, "recall_5_limit": 0.97, "recall_10_limit": 1.0}
    assert describe_qualities(means) == "hit@1 0.980, recall@5 0.900 (at most 0.970), recall@10 0.950"
    assert describe_limits(means) == "an image with more than 5 true labels cannot reach a recall@5 of 1"


def test_where_every_image_can_reach_one_no_limit_is_told() -> None:
    means = means_of(["dog"], ["dog"])
    assert describe_qualities(means) == "hit@1 1.000, recall@5 1.000, recall@10 1.000"
    assert describe_limits(means) == ""


def test_a_true_label_behind_place_k_does_not_count() -> None:
    means = means_of(["a", "b", "c", "d", "e", "dog"], ["dog"])
    assert (means["hit_1"], means["recall_5"], means["recall_10"]) == (0.0, 0.0, 1.0)


def test_a_label_that_is_listed_twice_counts_once() -> None:
    assert means_of(["dog", "Dog"], ["dog", "cat"])["recall_5"] == 0.5


def test_case_and_blanks_make_no_other_label() -> None:
    assert means_of([" Hot  DOG\n"], ["hot dog"])["hit_1"] == 1.0


def test_a_part_of_a_label_is_no_match() -> None:
    assert means_of(["dog"], ["hot dog"])["recall_10"] == 0.0


def test_an_image_without_labels_counts_as_nothing_found() -> None:
    recall = RecallSum()
    recall.add([], ["dog"])
    recall.add(["dog"], ["dog"])
    assert (recall.n_images, recall.means()["recall_10"]) == (2, 0.5)


def test_without_images_there_is_no_mean() -> None:
    assert RecallSum().means() == dict.fromkeys(MEASURES)


def test_two_sums_do_not_share_their_counts() -> None:
    recall, other = RecallSum(), RecallSum()
    recall.add(["dog"], ["dog"])
    assert set(other.totals()) == {0}
