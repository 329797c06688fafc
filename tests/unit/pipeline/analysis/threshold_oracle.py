"""Thresholds as they are described, from one score after another in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


class Oracle:
    """Thresholds as the module `threshold_learning` describes them, score by score, in plain Python."""

    def __init__(self, occurrences: Sequence[tuple[str, float, bool]], target: float) -> None:
        self.occurrences = occurrences
        self.target = target
        self.grid = sorted({goodness for _, goodness, _ in occurrences})
        self.curve = {step: self._precision(occurrences, step) for step in self.grid}
        self.common = min((step for step in self.grid if self.curve[step] >= target), default=math.inf)
        self.hit_rates = {step: self._hit_rate(step) for step in self.grid}
        self.strength = self._strength()

    def threshold(self, name: str) -> float:
        own = [(goodness, hit) for other, goodness, hit in self.occurrences if other == name]
        worst = min(goodness for goodness, _ in own)
        for step in self.grid:
            if step < min(worst, self.common):
                continue
            above = [hit for goodness, hit in own if goodness >= step]
            prior = self._prior(step, [(goodness, hit) for goodness, hit in own if goodness < step])
            if (sum(above) + self.strength * prior) / (len(above) + self.strength) >= self.target - 1e-9:
                return step
        return math.inf

    def _prior(self, step: float, below: list[tuple[float, bool]]) -> float:
        lower = [other for other in self.grid if other <= step]
        pooled = max(self.curve[other] for other in lower)
        if not below:
            return pooled
        expected = sum(self.hit_rates[goodness] for goodness, _ in below) / len(below)
        if expected in (0, 1):
            return pooled
        rate = (sum(hit for _, hit in below) + self.strength * expected) / (len(below) + self.strength)
        ratio = rate / (1 - rate) / (expected / (1 - expected))
        if ratio < 1:
            sizes = {other: sum(goodness >= other for _, goodness, _ in self.occurrences) for other in lower}
            pooled = max(min(self.curve[other], 1 - 0.5 / sizes[other]) for other in lower)
        if pooled == 1:
            return 1.0
        odds = ratio * pooled / (1 - pooled)
        return odds / (1 + odds)

    def _hit_rate(self, step: float) -> float:
        """Of the scores whose middle place lies within a twentieth of all occurrences."""
        goodness = np.array([goodness for _, goodness, _ in self.occurrences])
        hits = np.array([hit for _, _, hit in self.occurrences])
        places = {s: (goodness > s).sum() + (goodness == s).sum() / 2 for s in self.grid}
        near = [s for s in self.grid if abs(places[s] - places[step]) <= len(goodness) / 20]
        return float(hits[np.isin(goodness, near)].mean())

    def _strength(self) -> float:
        def log_beta(a: float, b: float) -> float:
            return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

        counts = []
        for name in {name for name, _, _ in self.occurrences}:
            own = [(goodness, hit) for other, goodness, hit in self.occurrences if other == name]
            mean = sum(self.hit_rates[goodness] for goodness, _ in own) / len(own)
            if 0 < mean < 1:
                n_hits = sum(hit for _, hit in own)
                counts.append((n_hits, len(own) - n_hits, mean))
        likelihoods = {}
        for m in (2**power for power in range(11)):
            terms = (
                log_beta(a + m * mean, b + m * (1 - mean)) - log_beta(m * mean, m * (1 - mean)) for a, b, mean in counts
            )
            likelihoods[m] = sum(terms)
        best = max(likelihoods.values())
        return max(strength for strength, value in likelihoods.items() if value >= best - 1.92)

    @staticmethod
    def _precision(occurrences: Sequence[tuple[str, float, bool]], step: float) -> float:
        above = [hit for _, goodness, hit in occurrences if goodness >= step]
        return sum(above) / len(above)
