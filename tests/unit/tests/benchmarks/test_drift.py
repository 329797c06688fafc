"""The simulation of nights, in small: what it promises of false alarms holds, and its control fails."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from pipeline.analysis import drift_tests
from tests.fixtures.checkout import ROOT


@pytest.fixture(scope="module")
def drift() -> ModuleType:
    # Scripts of benchmarks import what lies beside them.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
        import drift

        return sys.modules.pop(drift.__name__)


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_tests, "N_PERMUTATIONS", 99)


def night_ps(drift: ModuleType, n_nights: int, n_parts: int = 1) -> dict[str, np.ndarray]:
    """p of each test on each of the nights, on which nothing moves."""
    found: dict[str, list[float]] = {what: [] for what in drift.WHAT}
    for night in range(n_nights):
        rng = np.random.default_rng([3, night])
        sides = [drift.draw_shards(drift.Population(), n, 40, rng) for n in (12, 5)]
        if n_parts > 1:
            sides = [drift.split(side, n_parts, rng) for side in sides]
        for test in drift.test_night(*sides):
            found[test.what].append(test.p)
    return {what: np.array(ps) for what, ps in found.items()}


def test_where_nothing_moves_a_tenth_of_the_nights_has_a_p_below_a_tenth(drift: ModuleType) -> None:
    for what, ps in night_ps(drift, 100).items():
        # Of 100 nights 10 with a standard deviation of 3; no test may alarm more often. Ties of rare events alarm less.
        assert (ps <= 0.1).sum() <= 19, what
        assert (ps <= 0.5).sum() >= 30, what


def test_tests_that_know_nothing_of_shards_alarm_far_too_often(drift: ModuleType) -> None:
    ps = night_ps(drift, 10, n_parts=10)
    assert (ps["names"] <= 0.1).sum() >= 9


def test_a_shift_is_seen(drift: ModuleType) -> None:
    setting = drift.Setting(20, 10, 40, alikeness=10_000)
    drift_tests.N_PERMUTATIONS = 1999
    alarms = drift.count_alarms(setting, drift.SHIFTS["scores: half of their spread"], 3, seed=1)
    assert alarms["scores"] == 3
    assert drift.count_alarms(setting, drift.SHIFTS["nothing"], 3, seed=1)["any"] == 0
