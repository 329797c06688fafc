"""Time that is left."""

from __future__ import annotations

from tests.benchmarks.budgeted.budget import Budget


def test_what_is_left_shrinks_with_time_and_is_never_less_than_nothing():
    now = [100.0]
    budget = Budget(10, clock=lambda: now[0])
    left = []
    for now[0] in (100, 104, 110, 120):
        left.append(budget.left_s())
    assert left == [10, 6, 0, 0]


def test_a_share_ends_with_its_limit_or_with_the_whole():
    now = [0.0]
    budget = Budget(10, clock=lambda: now[0])
    assert budget.share(4).left_s() == 4
    now[0] = 8
    assert budget.share(4).left_s() == 2
