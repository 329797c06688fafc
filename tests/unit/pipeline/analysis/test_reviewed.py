"""What reviews of drawn images say of all images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.analysis.reviewed import (
    ReviewedCounts,
    ReviewedRun,
    _measures,
    analyse_reviews,
    estimate_reviewed,
    estimate_reviewed_difference,
    resample_weights,
)
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.store.store import Store
from tests.fixtures.stored.reviewed import add_reviews, add_sample
from tests.fixtures.stored.tables import commit_judged, run_record

RUN = "run-1"
IMAGES = [
    {"labels": ["dogs", "cat", "tree"]},
    {"labels": ["bus", "tie"]},
    {"labels": ["owl"]},
    {"labels": []},
]


def counts(probability: list[float], *columns: list[int]) -> ReviewedCounts:
    return ReviewedCounts(np.array(probability), *(np.array(column, np.float64) for column in columns))


def test_where_all_images_are_reviewed_the_measures_are_those_of_plain_counting_without_doubt() -> None:
    estimates = estimate_reviewed(counts([1, 1, 1], [2, 1, 0], [3, 2, 0], [1, 1, 0]))
    expected = {
        "recall_macro": (1 / 2 + 1) / 2,
        "precision_macro": (1 / 3 + 1 / 2) / 2,
        "f1_macro": (2 / 5 + 2 / 3) / 2,
        "recall_micro": 2 / 3,
        "precision_micro": 2 / 5,
        "f1_micro": 2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5),
        "hit": 1.0,
    }
    assert {name: estimate.value for name, estimate in estimates.items()} == pytest.approx(expected)
    assert all(estimate.low == estimate.high == estimate.value for estimate in estimates.values())


def test_an_image_counts_for_as_many_as_it_was_unlikely_to_be_drawn() -> None:
    estimates = estimate_reviewed(counts([0.5, 0.1], [1, 1], [1, 1], [1, 0]))
    assert estimates["precision_micro"].value == pytest.approx(2 / (2 + 10))
    assert estimates["hit"].value == pytest.approx(2 / 12)


def test_a_measure_of_nothing_is_left_out() -> None:
    estimates = estimate_reviewed(counts([0.5], [2], [0], [0]))
    assert set(estimates) == {"recall_macro", "f1_macro", "recall_micro"}


def test_a_difference_is_that_of_the_measures_and_what_both_share_cancels_out() -> None:
    rng = np.random.default_rng(1)
    probability_I = rng.uniform(0.05, 0.9, 300)
    n_truth_I, n_listed_I = rng.integers(1, 6, 300).astype(float), rng.integers(1, 6, 300).astype(float)
    n_hits_I = np.minimum(n_truth_I, n_listed_I)
    a = ReviewedCounts(probability_I, n_truth_I, n_listed_I, np.maximum(0, n_hits_I - (rng.random(300) < 0.2)))
    b = ReviewedCounts(probability_I, n_truth_I, n_listed_I, n_hits_I)
    first, second, found = estimate_reviewed(a), estimate_reviewed(b), estimate_reviewed_difference(a, b)
    differences = {name: second[name].value - first[name].value for name in first}
    assert {name: difference.value for name, difference in found.items()} == pytest.approx(differences, abs=1e-12)
    recall, alone = found["recall_micro"], first["recall_micro"]
    assert 0 < recall.low < recall.value < recall.high
    # Most of the scatter of either run is that of the images, which both have.
    assert recall.high - recall.low < 0.7 * (alone.high - alone.low)
    same = estimate_reviewed_difference(b, b).values()
    assert all((difference.low, difference.value, difference.high) == (0, 0, 0) for difference in same)


def test_sums_scatter_in_resamples_as_drawing_again_would_let_them() -> None:
    """The variance of a Horvitz-Thompson sum under Poisson sampling, known in closed form, from what was drawn."""
    rng = np.random.default_rng(0)
    probability_I, hits_I = rng.uniform(0.05, 0.9, 400), rng.integers(0, 4, 400).astype(float)
    expected = np.sqrt(np.sum((1 - probability_I) / probability_I**2 * hits_I**2))
    sums_R = resample_weights(probability_I, 4000) @ hits_I
    assert sums_R.std() == pytest.approx(expected, rel=0.05)
    assert sums_R.mean() == pytest.approx(np.sum(hits_I / probability_I), rel=0.02)


@pytest.mark.long
def test_intervals_hold_what_all_images_give_in_about_95_of_100_draws() -> None:
    rng = np.random.default_rng(3)
    n_images = 20_000
    n_truth_I, n_listed_I = rng.integers(1, 6, n_images), rng.integers(1, 6, n_images)
    n_hits_I = rng.binomial(np.minimum(n_truth_I, n_listed_I), 0.6)
    size_I = 0.5 / n_images + 0.5 * (shares := rng.lognormal(0, 1.5, n_images)) / shares.sum()
    probability_I = np.minimum(1, 500 * size_I)
    columns = [column.astype(np.float64) for column in (n_truth_I, n_listed_I, n_hits_I)]
    whole = _measures(ReviewedCounts(np.ones(n_images), *columns), np.ones((1, n_images)))
    n_held, values = 0, []
    for _ in range(300):
        drawn_I = rng.random(n_images) < probability_I
        found = estimate_reviewed(ReviewedCounts(probability_I[drawn_I], *(column[drawn_I] for column in columns)))
        n_held += found["recall_micro"].low <= whole["recall_micro"][0] <= found["recall_micro"].high
        values.append(found["recall_micro"].value)
    # 300 draws: three standard deviations of what 95 % intervals give.
    assert 0.91 <= n_held / 300 <= 0.985
    assert np.mean(values) == pytest.approx(whole["recall_micro"][0], rel=0.01)


class TestStore:
    """Reviews in a store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        commit_judged(store, RUN, {"a": IMAGES})
        return store

    def reviewed(self, store: Store, *reviews: tuple[int, str, str, str]) -> ReviewedRun:
        """Draws the first three images, and adds rows of place, label, verdict, reviewer."""
        add_sample(store, RUN, "a", dict.fromkeys(range(3), 0.5))
        if reviews:
            add_reviews(store, RUN, "a", reviews)
        return analyse_reviews(open_store(store.url), RUN)

    def test_judged_labels_among_the_first_k_are_right_or_wrong_under_their_names(self, store: Store) -> None:
        run = self.reviewed(
            store,
            (0, "dog", "yes", "ada"),
            (0, "tree", "no", "ada"),
            (0, "fox", "added", "ada"),
            (1, "bus", "no", "ada"),
            (3, "owl", "yes", "ada"),
        )
        reviews = run.reviews
        assert (reviews.sample, reviews.n_reviewed, reviews.n_drawn, reviews.n_samples) == ("random-1", 2, 3, 1)
        measures = run.measure([1, 3])
        assert measures[1]["precision_micro"].value == pytest.approx(1 / 2)
        assert measures[3]["precision_micro"].value == pytest.approx(1 / 3)
        assert measures[3]["recall_micro"].value == pytest.approx(1 / 2)

    def test_of_several_reviewers_the_majority_counts_and_a_tie_is_no_judgement(self, store: Store) -> None:
        run = self.reviewed(
            store,
            *((0, "dog", verdict, name) for verdict, name in (("no", "ada"), ("yes", "bob"), ("yes", "cyd"))),
            *((0, "cat", verdict, name) for verdict, name in (("no", "ada"), ("yes", "bob"))),
            (0, "tree", "unsure", "ada"),
        )
        assert run.measure([3])[3]["precision_micro"].value == 1
        (row,) = run.connection.sql("FROM review_agreement('run-1') WHERE reviewer_b = 'bob'").fetchall()
        assert row[:4] == ("ada", "bob", 2, 0.0)

    def test_a_person_who_says_the_same_again_has_one_voice(self, store: Store) -> None:
        add_reviews(store, RUN, "a", [(0, "dog", "yes", "ada")])
        # The same name, spelled otherwise, in a later import.
        add_reviews(store, RUN, "a", [(0, "dogs", "yes", "ada"), (0, "dog", "yes", "ada")])
        run = self.reviewed(store, (0, "dog", "no", "bob"), (0, "dog", "no", "cyd"))
        assert run.measure([1])[1]["precision_micro"].value == 0

    def test_without_a_reviewed_image_of_a_sample_it_says_what_to_do(self, store: Store) -> None:
        with pytest.raises(TagstreamError, match="draw some with `tagstream sample`"):
            self.reviewed(store)
