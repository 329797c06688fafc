"""Numbers with the interval that they lie in, 19 times out of 20."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, mean, variance

from pipeline.estimate import Estimate

_LEVEL = 0.95


def ratio(numerators: Sequence[float], denominators: Sequence[float], share_seen: float = 0.0) -> Estimate:
    """Sum of the numerators over the sum of the denominators, of units that were drawn at random.

    Args:
        share_seen: share of all units that was drawn, between 0 and 1. At 1 nothing is left to chance.
    """
    value = sum(numerators) / sum(denominators)
    spread = ratio_spread(numerators, denominators) * math.sqrt(max(0.0, 1 - share_seen))
    return within(value, spread, len(numerators) - 1)


def ratio_spread(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Relative standard error of such a ratio (linearised: how far each unit is from what the ratio gives it)."""
    n_units = len(numerators)
    if n_units < 2:
        return 0.0
    value, mean_size = sum(numerators) / sum(denominators), mean(denominators)
    residuals = [top - value * bottom for top, bottom in zip(numerators, denominators, strict=True)]
    return math.sqrt(variance(residuals) / n_units) / (value * mean_size) if value else 0.0


def within(value: float, relative_error: float, n_free: int) -> Estimate:
    """A value with so large a relative standard error, found with so many degrees of freedom."""
    reach = student_t(n_free) * relative_error
    # Multiplied, so that what is above zero stays there.
    return Estimate(value, value / (1 + reach), value * (1 + reach))


def student_t(n_free: int) -> float:
    """The quantile of Student's t for the level, by the first terms of its expansion; good to 1 % from three on."""
    z = NormalDist().inv_cdf((1 + _LEVEL) / 2)
    n = max(3, n_free)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3
