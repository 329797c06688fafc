"""Whether two groups of shards differ by more than chance, without a truth.

Labels of one image depend on each other, and images of one shard are alike, so that tests which count images alarm far
too often. These permute whole shards: if nothing has moved, each division of the shards into groups of these sizes is
as likely as the one that is there, whatever the shards are like inside (permutation tests of clusters; Fisher 1935,
Gail et al. 1996). Shards that both groups have, as those of two runs over one source, are exchanged within their pair.

A statistic is made of residual sums: what a group has of something, less what its size would give it. Several tests
are held together by Holm's correction (1979).

Shape suffixes: S shards, C columns of residuals, J names, B bins, R permutations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.measures import share

# An alarm is due below this p after Holm's correction. It is half of the one in a hundred nights that is promised:
# shards of one night may be a little more alike than those of several.
ALARM_P = 0.005
N_PERMUTATIONS = 9_999
_SEED = 0
_N_AT_ONCE = 500
_NUMBERS_AT_ONCE = 1 << 22
# Sums of the same numbers in another order differ in their last digits.
_EQUAL = 1 - 1e-9
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """What each of S shards has."""

    names: tuple[str, ...]
    """The J names of the columns of `labels_SJ`."""
    labels_SJ: Floats
    """Labels by name."""
    n_labelled_S: Floats
    scores_SB: Floats
    """Labels by their score, in bins from low to high."""
    score_sum_S: Floats
    sizes_SB: Floats
    """Images by their pixels, in bins from low to high."""
    pixel_sum_S: Floats
    n_images_S: Floats
    n_rejected_S: Floats
    n_unfinished_S: Floats
    n_branches_S: Floats
    """Labels and unfinished branches."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Which shards are held against which."""

    is_second_S: Flags
    pairs_P2: NDArray[np.int64]
    """Places of shards of the first group and of the second that are the same shard, [P, 2]; P may be 0."""

    @property
    def least_p(self) -> float:
        """The lowest p that so few shards can give."""
        _, n_second, n = self._unpaired()
        n_pairs = len(self.pairs_P2)
        n_divisions = math.comb(n, n_second) * 2**n_pairs
        # Groups that may change places differ as much then, the other way round.
        has_mirror = n_divisions > 1 and (2 * n_second == n or n_second in (0, n))
        return min(1.0, (2 if has_mirror else 1) / n_divisions)

    def permute(self, n: int, rng: np.random.Generator) -> Iterator[Floats]:
        """Random divisions of the shards, 1 for the second group, [at most n, S] at a time, n in all."""
        places, n_second, n_unpaired = self._unpaired()
        at_once = max(1, min(_N_AT_ONCE, _NUMBERS_AT_ONCE // len(self.is_second_S)))
        for start in range(0, n, at_once):
            n_here = min(at_once, n - start)
            is_second_RS = np.zeros((n_here, len(self.is_second_S)))
            if 0 < n_second < n_unpaired:
                chosen = np.argpartition(rng.random((n_here, n_unpaired)), n_second - 1, axis=1)[:, :n_second]
                np.put_along_axis(is_second_RS, places[chosen], 1.0, axis=1)
            elif n_second:
                is_second_RS[:, places] = 1.0
            if len(self.pairs_P2):
                is_swapped = rng.random((n_here, len(self.pairs_P2))) < 0.5
                is_second_RS[:, self.pairs_P2[:, 0]] = is_swapped
                is_second_RS[:, self.pairs_P2[:, 1]] = ~is_swapped
            yield is_second_RS

    def expect(self, residuals_SC: Floats) -> tuple[Floats, Floats]:
        """Mean and variance of the second group's sums over all divisions, [C] each."""
        places, n_second, n = self._unpaired()
        first_PC, second_PC = residuals_SC[self.pairs_P2[:, 0]], residuals_SC[self.pairs_P2[:, 1]]
        mean_C = (first_PC + second_PC).sum(axis=0) / 2
        variance_C = ((first_PC - second_PC) ** 2).sum(axis=0) / 4
        if n > 1:
            others = residuals_SC[places]
            mean_C = mean_C + n_second * others.mean(axis=0)
            spread_C = ((others - others.mean(axis=0)) ** 2).sum(axis=0)
            variance_C = variance_C + n_second * (n - n_second) / (n * (n - 1)) * spread_C
        elif n_second:
            mean_C = mean_C + residuals_SC[places[0]]
        return mean_C, variance_C

    def _unpaired(self) -> tuple[NDArray[np.int64], int, int]:
        """Places of the shards without a pair, how many of them are in the second group, and how many there are."""
        is_unpaired = np.ones(len(self.is_second_S), bool)
        is_unpaired[self.pairs_P2.ravel()] = False
        return np.nonzero(is_unpaired)[0], int(self.is_second_S[is_unpaired].sum()), int(is_unpaired.sum())


@dataclass(frozen=True, slots=True)
class DriftTest:
    """One thing that may have moved."""

    what: str
    """names, one_name, scores, unfinished, rejected or sizes."""
    before: float | None
    """Of the first group: a share, the mean score or the mean number of pixels; None of all names together."""
    since: float | None
    moved: float
    """How far it moved, 0 to 1: half the sum of what shares of names differ by (names), the difference of shares
    (one_name, unfinished, rejected), the largest difference of cumulative shares (scores, sizes)."""
    p: float
    """Probability of at least such a difference where nothing has moved."""
    p_holm: float
    """p after Holm's correction over all tests."""

    @property
    def is_drift(self) -> bool:
        return self.p_holm < ALARM_P


@dataclass(frozen=True, slots=True)
class MovedName:
    """How much more or less of a name there is, in labels an image."""

    name: str
    before: float
    since: float
    z: float
    """How far that is from what is to be expected, in standard deviations of the permutations."""


def find_drift(counts: ShardCounts, groups: Groups) -> tuple[list[DriftTest], list[MovedName]]:
    """Tests six things, and gives names, those first that moved the most in standard deviations.

    Both groups have a shard at least.
    """
    columns = _residual_columns(counts)
    residuals_SC = np.concatenate(list(columns.values()), axis=1)
    ends = np.cumsum([part.shape[1] for part in columns.values()])
    parts = {what: slice(end - part.shape[1], end) for (what, part), end in zip(columns.items(), ends, strict=True)}
    mean_C, variance_C = groups.expect(residuals_SC)
    deviation_C = np.sqrt(variance_C)
    # Sums of what does not vary are 0 but for rounding.
    is_varying_C = deviation_C > 1e-9 * (1 + np.abs(residuals_SC).sum(axis=0))
    scale_C = np.where(is_varying_C, deviation_C, np.inf)

    def statistics(is_second_RS: Floats) -> dict[str, Floats]:
        off_RC = is_second_RS @ residuals_SC - mean_C
        z_RJ = off_RC[:, parts["names"]] / scale_C[parts["names"]]
        found = {"names": (z_RJ**2).sum(axis=1), "one_name": np.abs(z_RJ).max(axis=1, initial=0)}
        off_RC = np.where(is_varying_C, np.abs(off_RC), 0)
        return found | {what: off_RC[:, part].max(axis=1, initial=0) for what, part in parts.items() if what != "names"}

    ps = _permutation_ps(statistics, groups)
    z_J = (groups.is_second_S @ residuals_SC - mean_C)[parts["names"]] / scale_C[parts["names"]]
    names = _moved_names(counts, groups.is_second_S, z_J)
    return _describe(counts, groups.is_second_S, names, ps), names


def _residual_columns(counts: ShardCounts) -> dict[str, Floats]:
    """By what is tested what each shard has beyond its due, [S, C] each; every column adds up to 0."""
    return {
        "names": _residuals(counts.labels_SJ, counts.n_labelled_S),
        "scores": _residuals(np.cumsum(counts.scores_SB, axis=1), counts.scores_SB.sum(axis=1)),
        "unfinished": _residuals(counts.n_unfinished_S[:, None], counts.n_branches_S),
        "rejected": _residuals(counts.n_rejected_S[:, None], counts.n_images_S),
        "sizes": _residuals(np.cumsum(counts.sizes_SB, axis=1), counts.sizes_SB.sum(axis=1)),
    }


def _residuals(part_SC: Floats, whole_S: Floats) -> Floats:
    rate_C = share(part_SC.sum(axis=0), np.full(part_SC.shape[1], whole_S.sum()))
    return part_SC - whole_S[:, None] * rate_C


def _permutation_ps(statistics: Callable[[Floats], dict[str, Floats]], groups: Groups) -> dict[str, float]:
    observed = {what: value[0] for what, value in statistics(groups.is_second_S[None].astype(np.float64)).items()}
    n_as_large, n_done = dict.fromkeys(observed, 1), 1
    for is_second_RS in groups.permute(N_PERMUTATIONS, np.random.default_rng(_SEED)):
        n_done += len(is_second_RS)
        for what, value_R in statistics(is_second_RS).items():
            n_as_large[what] += int((value_R >= observed[what] * _EQUAL).sum())
        # Counts only grow: whatever the other permutations are, none of the tests can alarm any more.
        if min(n_as_large.values()) > ALARM_P * (N_PERMUTATIONS + 1):
            break
    return {what: n / n_done for what, n in n_as_large.items()}


def holm(ps: dict[str, float]) -> dict[str, float]:
    """Holm's corrected p of each test: below a level where the test is rejected at that level."""
    corrected, largest = {}, 0.0
    for place, (what, p) in enumerate(sorted(ps.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(ps) - place)))
        corrected[what] = largest
    return corrected


def _moved_names(counts: ShardCounts, is_second_S: Flags, z_J: Floats) -> list[MovedName]:
    before_J, since_J = (
        share(counts.labels_SJ[group].sum(axis=0), np.full(len(z_J), counts.n_labelled_S[group].sum()))
        for group in (~is_second_S, is_second_S)
    )
    rows = zip(counts.names, before_J.tolist(), since_J.tolist(), z_J.tolist(), strict=True)
    return sorted((MovedName(*row) for row in rows), key=lambda moved: (-abs(moved.z), moved.name))


def _describe(counts: ShardCounts, is_second_S: Flags, names: list[MovedName], ps: dict[str, float]) -> list[DriftTest]:
    corrected = holm(ps)
    moved, values = _effects(counts, is_second_S), _values(counts, is_second_S)
    if names:
        values["one_name"] = names[0].before, names[0].since
        moved["one_name"] = min(1.0, abs(names[0].since - names[0].before))
    tests = []
    for what, p in ps.items():
        before, since = values.get(what, (None, None))
        tests.append(DriftTest(what, before, since, moved.get(what, 0.0), p, corrected[what]))
    return tests


def _effects(counts: ShardCounts, is_second_S: Flags) -> dict[str, float]:
    """How far each thing moved, 0 to 1."""

    def shares(counts_SC: Floats) -> tuple[Floats, Floats]:
        first_C, second_C = counts_SC[~is_second_S].sum(axis=0), counts_SC[is_second_S].sum(axis=0)
        return share(first_C, np.full_like(first_C, first_C.sum())), share(
            second_C, np.full_like(second_C, second_C.sum())
        )

    effects = {}
    first_J, second_J = shares(counts.labels_SJ)
    effects["names"] = float(np.abs(second_J - first_J).sum() / 2)
    for what, bins_SB in (("scores", counts.scores_SB), ("sizes", counts.sizes_SB)):
        first_B, second_B = shares(bins_SB)
        effects[what] = float(np.abs(np.cumsum(second_B - first_B)).max(initial=0))
    for what, (before, since) in _values(counts, is_second_S).items():
        if what in ("unfinished", "rejected"):
            effects[what] = abs(since - before)
    return effects


def _values(counts: ShardCounts, is_second_S: Flags) -> dict[str, tuple[float, float]]:
    """Means and shares of both groups."""

    def both(part_S: Floats, whole_S: Floats) -> tuple[float, float]:
        first, second = (
            float(share(part_S[group].sum(), whole_S[group].sum())) for group in (~is_second_S, is_second_S)
        )
        return first, second

    return {
        "scores": both(counts.score_sum_S, counts.scores_SB.sum(axis=1)),
        "unfinished": both(counts.n_unfinished_S, counts.n_branches_S),
        "rejected": both(counts.n_rejected_S, counts.n_images_S),
        "sizes": both(counts.pixel_sum_S, counts.sizes_SB.sum(axis=1)),
    }
