"""Estimates and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.analysis.measures import ImageCounts, estimate, estimate_mean


def test_no_images_give_no_measures() -> None:
    assert estimate(ImageCounts.of([])) == {}


def test_images_that_are_all_alike_leave_no_doubt() -> None:
    for measure in estimate(ImageCounts.of([(2, 1, 4, 1, 1000)])).values():
        assert measure.low == measure.value == measure.high


def test_the_interval_of_a_share_is_that_of_the_binomial_distribution() -> None:
    hit = estimate(ImageCounts.of([(1, 1, 1, 1, 300), (1, 0, 1, 0, 700)]))["hit"]
    margin = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert hit.value == 0.3
    # 2,000 resamples place a percentile to about 4 % of the margin.
    assert (hit.low, hit.high) == (pytest.approx(0.3 - margin, abs=0.003), pytest.approx(0.3 + margin, abs=0.003))


def test_the_intervals_are_those_of_drawing_images_one_by_one() -> None:
    kinds = [(1, 1, 5, 1, 40), (3, 1, 5, 2, 30), (6, 4, 5, 4, 20), (2, 0, 0, 0, 10)]
    images = np.repeat(np.array([kind[:4] for kind in kinds]), [kind[4] for kind in kinds], axis=0)
    rng = np.random.default_rng(1)
    drawn = [images[rng.integers(0, len(images), len(images))] for _ in range(4000)]
    recalls = [(sample[:, 1] / sample[:, 0]).mean() for sample in drawn]
    micro = [sample[:, 3].sum() / sample[:, 2].sum() for sample in drawn]
    measured = estimate(ImageCounts.of(kinds))
    for name, values in (("recall_macro", recalls), ("precision_micro", micro)):
        low, high = np.percentile(values, (2.5, 97.5))
        tolerance = 0.08 * (high - low)
        assert measured[name].low == pytest.approx(low, abs=tolerance)
        assert measured[name].high == pytest.approx(high, abs=tolerance)


def test_the_same_counts_give_the_same_interval() -> None:
    counts = ImageCounts.of([(2, 1, 5, 1, 30), (1, 1, 5, 1, 10)])
    assert estimate(counts) == estimate(counts)


def test_the_interval_of_a_mean_of_few_values_stays_between_them() -> None:
    mean = estimate_mean([0.0] * 9 + [1.0])
    assert mean.value == pytest.approx(0.1)
    assert 0.0 == mean.low < mean.value < mean.high < 0.5


def test_values_that_are_all_alike_leave_no_doubt() -> None:
    mean = estimate_mean([0.25] * 20)
    assert mean.low == mean.value == mean.high == 0.25
