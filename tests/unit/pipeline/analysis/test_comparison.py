"""Two runs against each other."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.analysis.comparison import Comparison, compare_runs
from pipeline.analysis.measures import ImageCounts, estimate, estimate_difference
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store
from schemas import REJECTED
from tests.fixtures.stored.reviewed import add_reviews, review_by_truth
from tests.fixtures.stored.tables import commit_judged, run_record
from tests.unit.pipeline.analysis import oracle

A, B = "run-a", "run-b"
Images = Sequence[Mapping[str, Any]]
CompareFunction = Callable[..., Comparison]


@pytest.fixture
def compare(tmp_path: Path) -> CompareFunction:
    """A function that commits the images of two runs and compares them."""

    def build(of_a: Images, of_b: Images, k: int = 10, rankings: tuple[str, str] = ("prob", "prob")) -> Comparison:
        store = Store(str(tmp_path))
        for run, images, ranking in zip((A, B), (of_a, of_b), rankings, strict=True):
            store.create_run(run_record(run, labelling={"ranking": ranking}))
            commit_judged(store, run, {"s": images})
        return compare_runs(open_store(store.url), A, B, k, "labels")

    return build


def with_labels(images: Images, labels: Sequence[Sequence[Any]]) -> Images:
    return [{**image, "labels": listed} for image, listed in zip(images, labels, strict=True)]


def random_runs(seed: int, n_images: int) -> tuple[Images, Images]:
    rng = random.Random(seed)
    words = ["dog", "dogs", "cat", "tree", "bus", "tie", "car"]
    images = [{"truth": rng.sample(words, rng.randrange(1, 4))} for _ in range(n_images)]
    draw = [[rng.sample(words, rng.randrange(len(words))) for _ in images] for _ in range(2)]
    return with_labels(images, draw[0]), with_labels(images, draw[1])


@pytest.mark.parametrize("k", [1, 3, 10])
def test_differences_are_those_of_measuring_each_run_alone(compare: CompareFunction, k: int) -> None:
    of_a, of_b = random_runs(k, 40)
    name_of = read_vocabulary(None).name_of
    first, second = (oracle.measures_at(images, k, name_of) for images in (of_a, of_b))
    differences = {name: estimate.value for name, estimate in compare(of_a, of_b, k).differences.items()}
    assert differences == pytest.approx({name: second[name] - first[name] for name in first}, abs=1e-12)


def test_names_are_counted_on_both_lost_and_gained(compare: CompareFunction) -> None:
    images = [{"truth": ["dog"]}] * 2
    of_a = with_labels(images, [[("dog", 0.5), ("cat", 0.4)], [("dogs", 0.5)]])
    of_b = with_labels(images, [[("dog", 0.75)], [("dog", 0.375), ("tree", 0.1)]])
    comparison = compare(of_a, of_b)
    counts = {change.name: (change.n_both, change.n_lost, change.n_gained) for change in comparison.names}
    assert counts == {"dog": (2, 0, 0), "cat": (0, 1, 0), "tree": (0, 0, 1)}
    # Second minus first: +0.25 and -0.125.
    assert {change.name: change.score_shift for change in comparison.names} == {"dog": 0.125, "cat": None, "tree": None}
    assert comparison.mean_score_shift == 0.0625


@pytest.mark.parametrize("k", [1, 3, 10])
def test_changes_of_names_are_those_of_counting_image_by_image(compare: CompareFunction, k: int) -> None:
    of_a, of_b = random_runs(10 + k, 40)
    comparison = compare(of_a, of_b, k)
    found = [(one.name, one.n_both, one.n_lost, one.n_gained, one.score_shift) for one in comparison.names]
    expected = slow_changes(of_a, of_b, k)
    assert found == expected
    shifts = [shift for *_, shift in expected if shift is not None]
    assert comparison.mean_score_shift == pytest.approx(sum(shifts) / sum(row[1] for row in expected), abs=1e-12)


def slow_changes(of_a: Images, of_b: Images, k: int) -> list[tuple[Any, ...]]:
    """Name, images of both, of the first alone and of the second alone, and the sum of what the score went up.

    Scores halve from label to label, so that all sums are exact.
    """
    changes: dict[str, list[Any]] = {}
    for pair in zip(of_a, of_b, strict=True):
        first, second = (scores_of_first_names(image["labels"], k) for image in pair)
        for name in first.keys() | second.keys():
            change = changes.setdefault(name, [0, 0, 0, None])
            if name in first and name in second:
                change[0] += 1
                change[3] = (change[3] or 0.0) + second[name] - first[name]
            else:
                change[1 if name in first else 2] += 1
    rows = [(name, *change) for name, change in changes.items()]
    return sorted(rows, key=lambda row: (-row[2] - row[3], row[0]))


def scores_of_first_names(labels: Sequence[str], k: int) -> dict[str, float]:
    """The first k names of an image, each with the score of the best of its labels."""
    name_of = read_vocabulary(None).name_of
    scores: dict[str, float] = {}
    for rank, label in enumerate(labels):
        if name := name_of(label):
            scores.setdefault(name, 0.5**rank)
    return dict(list(scores.items())[:k])


def test_only_images_that_both_have_labelled_are_compared(compare: CompareFunction) -> None:
    of_a = [{"truth": ["dog"], "labels": ["dog"]}] * 3
    of_b = [of_a[0], {"truth": ["dog"], "labels": [], "status": REJECTED}]
    comparison = compare(of_a, of_b)
    assert (comparison.n_paired, comparison.n_judged) == (1, 1)
    assert (comparison.a.reject_rate, comparison.b.reject_rate) == (0.0, 0.5)
    assert comparison.reject_rate_difference == 0.5


def test_scores_of_different_rankings_are_not_compared(compare: CompareFunction) -> None:
    images = [{"truth": ["dog"], "labels": ["dog"]}]
    assert compare(images, images, rankings=("prob", "ppl")).mean_score_shift is None


def test_without_a_truth_there_are_no_differences_of_recall(compare: CompareFunction) -> None:
    comparison = compare([{"truth": None, "labels": ["dog"]}], [{"truth": None, "labels": ["cat"]}])
    assert (comparison.n_paired, comparison.n_judged, comparison.differences) == (1, 0, {})
    assert len(comparison.names) == 2


def test_runs_without_a_common_image_are_an_error(compare: CompareFunction) -> None:
    rejected = [{"truth": ["dog"], "labels": [], "status": REJECTED}]
    with pytest.raises(TagstreamError, match="have no labelled image in common"):
        compare([{"truth": ["dog"], "labels": ["dog"]}], rejected)


def test_the_same_run_twice_differs_in_nothing(compare: CompareFunction) -> None:
    of_a, _ = random_runs(0, 30)
    for difference in compare(of_a, of_a).differences.values():
        assert difference.low == difference.value == difference.high == 0.0


def test_paired_intervals_are_narrower_than_those_of_two_independent_runs() -> None:
    # Both runs find the easy images and miss the hard ones; the second also finds 20 of the hard.
    kinds = [(1, 1, 1, 500), (1, 0, 1, 20), (1, 0, 0, 480)]
    a = ImageCounts.of((truth, of_a, 1, of_a, n) for truth, of_a, _, n in kinds)
    b = ImageCounts.of((truth, of_b, 1, of_b, n) for truth, _, of_b, n in kinds)
    paired = estimate_difference(a, b)["hit"]
    alone = [estimate(counts)["hit"] for counts in (a, b)]
    assert paired.value == pytest.approx(0.02)
    # The 20 alone make the difference: a binomial share of 0.02.
    margin = 1.96 * np.sqrt(0.02 * 0.98 / 1000)
    assert (paired.low, paired.high) == (
        pytest.approx(0.02 - margin, abs=0.0015),
        pytest.approx(0.02 + margin, abs=0.0015),
    )
    assert paired.high - paired.low < 0.5 * max(one.high - one.low for one in alone)


class TestReviews:
    """What people said of a sample of either run."""

    def compared(self, tmp_path: Path, of_a: Images, of_b: Images, drawn_from: str = A, **drawn: Any) -> Comparison:
        store = Store(str(tmp_path))
        for run, images in ((A, of_a), (B, of_b)):
            store.create_run(run_record(run))
            commit_judged(store, run, {"s": images})
        images = of_a if drawn_from == A else of_b
        review_by_truth(
            store, drawn_from, "s", images, drawn.get("probabilities", dict.fromkeys(range(len(images)), 1.0))
        )
        for place, name, verdict in drawn.get("more", ()):
            add_reviews(store, B, "s", [(place, name, verdict, "bob")])
        return compare_runs(open_store(store.url), A, B, 3, "reviews")

    def test_where_all_is_judged_differences_are_those_of_the_truth(
        self, compare: CompareFunction, tmp_path: Path
    ) -> None:
        of_a, _ = random_runs(7, 40)
        # The same names in another order: all that B lists was judged with A.
        of_b = with_labels(of_a, [image["labels"][::-1] for image in of_a])
        expected = compare(of_a, of_b, 3).differences
        found = self.compared(tmp_path / "reviewed", of_a, of_b)
        assert (found.n_paired, found.n_judged) == (40, 40)
        for name in ("recall_macro", "recall_micro", "precision_micro"):
            assert found.differences[name].value == pytest.approx(expected[name].value, abs=1e-12)

    @pytest.mark.parametrize("drawn_from", [A, B])
    def test_images_count_for_what_they_stand_and_what_nobody_judged_does_not(
        self, tmp_path: Path, drawn_from: str
    ) -> None:
        of_a = [{"labels": ["dog", "cat"], "truth": ["dog"]}, {"labels": ["owl"], "truth": ["owl"]}]
        of_b = [{"labels": ["cat", "fox"], "truth": ["dog"]}, {"labels": ["owl", "bus"], "truth": ["owl"]}]
        found = self.compared(tmp_path, of_a, of_b, drawn_from, probabilities={0: 0.25, 1: 0.5})
        # Image 0 stands for 4, image 1 for 2. By A's labels dog, cat and owl are judged; by B's also fox and bus.
        precision = {A: (0 + 2) / (4 + 2) - (4 + 2) / (8 + 2), B: (0 + 2) / (8 + 4) - (4 + 2) / (8 + 2)}[drawn_from]
        assert found.differences["precision_micro"].value == pytest.approx(precision)
        assert found.differences["recall_micro"].value == pytest.approx(2 / 6 - 1)
        # By A's labels nobody judged fox of B, for 4, and bus, for 2.
        assert found.judged_shares == pytest.approx({A: (1, 6 / 12), B: (1, 1)}[drawn_from])

    def test_reviews_of_the_other_run_count_too_and_images_of_one_run_alone_do_not(self, tmp_path: Path) -> None:
        of_a = [{"labels": ["dog"], "truth": ["dog"]}, {"labels": ["owl"], "truth": ["cat"]}]
        of_b = [{"labels": ["dog", "fox"], "truth": []}, {"labels": ["owl"], "truth": [], "status": REJECTED}]
        found = self.compared(tmp_path, of_a, of_b, more=[(0, "fox", "no")])
        assert (found.n_paired, found.n_judged, found.judged_shares) == (1, 1, (1, 1))
        assert found.differences["precision_micro"].value == pytest.approx(-1 / 2)

    def test_without_reviews_it_says_what_to_do(self, compare: CompareFunction, tmp_path: Path) -> None:
        compare([{"labels": ["dog"]}], [{"labels": ["dog"]}])
        with pytest.raises(TagstreamError, match="nobody reviewed an image of run run-a or run-b"):
            compare_runs(open_store(str(tmp_path)), A, B, 3, "reviews")
