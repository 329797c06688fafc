"""Tests that keep shards whole, held against every division of a few shards."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from pipeline.analysis import drift_tests
from pipeline.analysis.drift_tests import Groups, ShardCounts, find_drift, holm

# Three of seven shards are the second group.
IS_SECOND = np.array([0, 0, 1, 0, 1, 0, 1], bool)
NO_PAIRS = np.zeros((0, 2), np.int64)
WHAT = {"names", "one_name", "scores", "unfinished", "rejected", "sizes"}


def make_counts(n_shards: int, seed: int = 0) -> ShardCounts:
    """Shards of one population, of 50 to 100 images."""
    rng = np.random.default_rng(seed)
    n_images = rng.integers(50, 101, n_shards).astype(float)
    n_rejected = rng.binomial(n_images.astype(int), 0.1).astype(float)
    labels = rng.poisson(n_images[:, None] * [1.0, 0.5, 0.2]).astype(float)
    bins = rng.poisson(20, (n_shards, 5)).astype(float)
    return ShardCounts(
        names=("cat", "dog", "owl"),
        labels_SJ=labels,
        n_labelled_S=n_images - n_rejected,
        scores_SB=bins,
        score_sum_S=bins @ np.arange(5),
        sizes_SB=bins[:, ::-1],
        pixel_sum_S=bins.sum(axis=1),
        n_images_S=n_images,
        n_rejected_S=n_rejected,
        n_unfinished_S=rng.binomial(100, 0.05, n_shards).astype(float),
        n_branches_S=np.full(n_shards, 100.0),
    )


def all_divisions(groups: Groups) -> list[np.ndarray]:
    """Every way to deal the shards to two groups of these sizes, pairs one each."""
    n = len(groups.is_second_S)
    free = [place for place in range(n) if place not in groups.pairs_P2]
    n_second = sum(groups.is_second_S[free])
    divisions = []
    for chosen in combinations(free, int(n_second)):
        for sides in product((0, 1), repeat=len(groups.pairs_P2)):
            division = np.zeros(n)
            division[list(chosen)] = 1
            division[[pair[side] for pair, side in zip(groups.pairs_P2, sides, strict=True)]] = 1
            divisions.append(division)
    return divisions


GROUPS = [
    Groups(IS_SECOND, NO_PAIRS),
    Groups(IS_SECOND, np.array([[0, 2], [1, 4]])),
    Groups(IS_SECOND[:6], np.array([[0, 2], [1, 4]])),
    Groups(np.array([0, 1, 0, 1], bool), NO_PAIRS),
    Groups(np.array([0, 1, 0, 1], bool), np.array([[0, 1], [2, 3]])),
    Groups(np.array([0, 1], bool), NO_PAIRS),
]


@pytest.mark.parametrize("groups", GROUPS)
def test_sums_have_the_mean_and_variance_of_all_divisions(groups: Groups) -> None:
    residuals = np.random.default_rng(1).normal(size=(len(groups.is_second_S), 3))
    sums = np.array([division @ residuals for division in all_divisions(groups)])
    mean, variance = groups.expect(residuals)
    assert mean == pytest.approx(sums.mean(axis=0))
    assert variance == pytest.approx(sums.var(axis=0))


@pytest.mark.parametrize("groups", GROUPS)
def test_every_division_is_as_likely(groups: Groups) -> None:
    divisions = all_divisions(groups)
    drawn = np.concatenate(list(groups.permute(20_000, np.random.default_rng(2))))
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(row) for row in found} == {tuple(division) for division in divisions}
    expected = len(drawn) / len(divisions)
    # Five standard deviations.
    assert np.abs(counts - expected).max() <= 5 * expected**0.5


@pytest.mark.parametrize("groups", GROUPS)
def test_the_least_p_is_that_of_the_most_unlike_division(groups: Groups) -> None:
    n = len(groups.is_second_S)
    far_apart = np.random.default_rng(5).normal(size=n)
    far_apart += 100 * groups.is_second_S
    mean, _ = groups.expect(far_apart[:, None])
    off = np.abs([division @ far_apart - mean[0] for division in all_divisions(groups)])
    observed = abs(groups.is_second_S @ far_apart - mean[0])
    assert groups.least_p == pytest.approx((off >= observed * (1 - 1e-9)).mean())


def test_p_is_the_share_of_all_divisions_that_differ_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    # No test is given up before its time.
    monkeypatch.setattr(drift_tests, "ALARM_P", 1.0)
    counts, groups = make_counts(7), Groups(IS_SECOND, NO_PAIRS)
    tests, _ = find_drift(counts, groups)
    assert {test.what for test in tests} == WHAT
    rate = counts.n_rejected_S.sum() / counts.n_images_S.sum()
    off = [
        abs(sum(counts.n_rejected_S[s] - rate * counts.n_images_S[s] for s in range(7) if division[s]))
        for division in all_divisions(groups)
    ]
    observed = abs(sum((counts.n_rejected_S - rate * counts.n_images_S)[IS_SECOND]))
    exact = np.mean(np.array(off) >= observed - 1e-9)
    (rejected,) = (test for test in tests if test.what == "rejected")
    # 9,999 random divisions: four standard deviations.
    assert rejected.p == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 9_999) ** 0.5 + 1e-4)
    assert rejected.before == pytest.approx(counts.n_rejected_S[~IS_SECOND].sum() / counts.n_images_S[~IS_SECOND].sum())
    assert rejected.moved == pytest.approx(abs(rejected.since - rejected.before))


@pytest.mark.parametrize("factor", [1, 3])
def test_to_stop_early_changes_no_alarm(monkeypatch: pytest.MonkeyPatch, factor: int) -> None:
    counts, is_second = make_counts(20), np.arange(20) >= 12
    counts = replace(counts, n_rejected_S=np.where(is_second, counts.n_rejected_S * factor, counts.n_rejected_S))
    found = []
    for n_at_once in (100, drift_tests.N_PERMUTATIONS):
        monkeypatch.setattr(drift_tests, "_N_AT_ONCE", n_at_once)
        found.append({test.what: test for test in find_drift(counts, Groups(is_second, NO_PAIRS))[0]})
    early, whole = found
    assert {what for what, test in early.items() if test.is_drift} == ({"rejected"} if factor > 1 else set())
    assert all(early[what].is_drift == test.is_drift for what, test in whole.items())
    # Some were given up: their p is of fewer permutations.
    assert (early["sizes"].p == whole["sizes"].p) is (factor > 1)


@pytest.mark.parametrize("what", sorted(WHAT))
def test_what_moves_is_what_alarms(what: str) -> None:
    counts = make_counts(40)
    is_second = np.arange(40) >= 28
    new = is_second[:, None]
    reversed_bins = np.where(new, counts.scores_SB * [0, 0, 1, 2, 2], counts.scores_SB)
    moved = {
        "names": {"labels_SJ": np.where(new, counts.labels_SJ[:, [1, 0, 2]], counts.labels_SJ)},
        "one_name": {"labels_SJ": np.where(new, counts.labels_SJ * [1, 1, 3], counts.labels_SJ)},
        "scores": {"scores_SB": reversed_bins},
        "sizes": {"sizes_SB": reversed_bins},
        "rejected": {"n_rejected_S": np.where(is_second, counts.n_rejected_S * 3, counts.n_rejected_S)},
        "unfinished": {"n_unfinished_S": np.where(is_second, counts.n_unfinished_S * 3, counts.n_unfinished_S)},
    }[what]
    tests, names = find_drift(replace(counts, **moved), Groups(is_second, NO_PAIRS))
    # The mix of names is made of single ones.
    expected = {"names", "one_name"} if what in ("names", "one_name") else {what}
    assert {test.what for test in tests if test.is_drift} == expected
    assert all(test.moved > 0.05 for test in tests if test.is_drift)
    if what == "one_name":
        assert names[0].name == "owl"


def test_where_nothing_differs_nothing_is_found() -> None:
    counts = make_counts(1)
    same = replace(
        counts,
        **{
            name: np.repeat(getattr(counts, name), 20, axis=0)
            for name in ShardCounts.__dataclass_fields__
            if name != "names"
        },
    )
    tests, names = find_drift(same, Groups(np.arange(20) >= 10, NO_PAIRS))
    assert {test.p for test in tests} == {1.0}
    assert {moved.z for moved in names} == {0.0}


def test_pairs_show_what_is_lost_among_unlike_shards() -> None:
    """Shards differ ten times as much as what happened to each of them."""
    rng = np.random.default_rng(7)
    counts = make_counts(24)
    of_shard = np.tile(rng.integers(0, 40, 12), 2).astype(float)
    is_second = np.arange(24) >= 12
    counts = replace(counts, n_images_S=np.full(24, 100.0), n_rejected_S=of_shard + 3 * is_second)
    pairs = np.stack([np.arange(12), np.arange(12) + 12], axis=1)
    p = {}
    for name, groups in (("pairs", Groups(is_second, pairs)), ("none", Groups(is_second, NO_PAIRS))):
        p[name] = next(test.p for test in find_drift(counts, groups)[0] if test.what == "rejected")
    assert p["pairs"] < 0.002
    assert p["none"] > 0.2


def test_corrected_ps_are_those_of_holm() -> None:
    # The example of Holm's step-down: 0.01 * 4, 0.02 * 3, then never less.
    ps = {"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.02}
    assert holm(ps) == pytest.approx({"b": 0.04, "d": 0.06, "a": 0.06, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
