"""How often the drift tests alarm where nothing has moved, and how often where something has, by simulation.

A night is some new shards held against those of before, all drawn from one population whose shards differ from one
another: each has a mix of names, scores, sizes, rejects and unfinished branches of its own. A control takes each shard
for many, as tests would that know nothing of shards.

    nice -n 15 python tests/benchmarks/drift.py --out tests/benchmarks/results/drift.md
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.analysis import drift_tests
from pipeline.analysis.drift_tests import ALARM_P, DriftTest, Groups, ShardCounts, find_drift

N_NAMES, N_BINS, N_LABELS = 100, 40, 10
NO_PAIRS = np.zeros((0, 2), np.int64)
WHAT = ("names", "one_name", "scores", "unfinished", "rejected", "sizes")


@dataclass(frozen=True, slots=True)
class Population:
    """What shards are drawn from; a shift changes a field for the new shards alone."""

    alikeness: float = 100.0
    """How alike shards are: the weight of the Dirichlet distribution of their mixes of names. All else follows."""
    rare_to: float = 1.0
    """By what factor a name that 3 % of the images have becomes more frequent."""
    renamed: float = 0.0
    """Share of labels that go from the frequent half of the names to the other half."""
    score: float = 0.0
    """How far scores move, in bins; they scatter by six within a shard."""
    size: float = 0.0
    """How far sizes move, in doublings of the number of pixels."""
    reject_rate: float = 0.01
    unfinished_rate: float = 0.03

    def mix(self) -> np.ndarray:
        """How frequent each name is among labels."""
        frequency = 1 / np.arange(3, N_NAMES + 3)
        frequency /= frequency.sum()
        # As frequent as a name on 3 % of the images, which have ten labels each.
        frequency[-1] = 0.03 / N_LABELS * self.rare_to
        moved = frequency[: N_NAMES // 2] * self.renamed
        frequency[: N_NAMES // 2] -= moved
        frequency[N_NAMES // 2 :] += moved.sum() / (N_NAMES - N_NAMES // 2)
        return frequency / frequency.sum()


def draw_shards(population: Population, n: int, n_images: int, rng: np.random.Generator) -> ShardCounts:
    """Counts of n shards of about as many images, each shard unlike the others."""
    n_images_S = rng.integers(n_images // 2, n_images * 3 // 2 + 1, n).astype(np.float64)
    n_rejected_S = _beta_binomial(n_images_S, population.reject_rate, population.alikeness, rng)
    n_labelled_S = n_images_S - n_rejected_S
    n_branches_S = n_labelled_S * N_LABELS
    n_unfinished_S = _beta_binomial(n_branches_S, population.unfinished_rate, 3 * population.alikeness, rng)
    mixes_SJ = rng.dirichlet(population.mix() * population.alikeness, n)
    n_labels_S = (n_branches_S - n_unfinished_S).astype(np.int64)
    labels_SJ = np.array([rng.multinomial(k, mix) for k, mix in zip(n_labels_S, mixes_SJ, strict=True)], np.float64)
    between = 10 / population.alikeness**0.5
    scores_SB = _bins(n_labels_S, 20 + population.score, between, 6.0, rng)
    sizes_SB = _bins(n_images_S.astype(np.int64), 20 + 4 * population.size, 1.5 * between, 3.0, rng)
    places_B = np.arange(N_BINS)
    return ShardCounts(
        names=tuple(f"name {number}" for number in range(N_NAMES)),
        labels_SJ=labels_SJ,
        n_labelled_S=n_labelled_S,
        scores_SB=scores_SB,
        score_sum_S=scores_SB @ places_B,
        sizes_SB=sizes_SB,
        pixel_sum_S=sizes_SB @ places_B,
        n_images_S=n_images_S,
        n_rejected_S=n_rejected_S,
        n_unfinished_S=n_unfinished_S,
        n_branches_S=n_branches_S,
    )


def _beta_binomial(n_S: np.ndarray, rate: float, weight: float, rng: np.random.Generator) -> np.ndarray:
    return rng.binomial(n_S.astype(np.int64), rng.beta(rate * weight, (1 - rate) * weight, len(n_S))).astype(np.float64)


def _bins(n_S: np.ndarray, centre: float, between: float, within: float, rng: np.random.Generator) -> np.ndarray:
    """Histograms of normal values around the shards' own centres, [S, B]."""
    rows = []
    for n in n_S:
        values = rng.normal(rng.normal(centre, between), within, n)
        rows.append(np.bincount(np.clip(values, 0, N_BINS - 1).astype(np.int64), minlength=N_BINS))
    return np.array(rows, np.float64)


def join(first: ShardCounts, second: ShardCounts) -> ShardCounts:
    """The shards of both."""
    fields = [name for name in ShardCounts.__dataclass_fields__ if name != "names"]
    joined = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in fields}
    return ShardCounts(names=first.names, **joined)


def split(counts: ShardCounts, n_parts: int, rng: np.random.Generator) -> ShardCounts:
    """Each shard as so many that have each its share, by chance: what a test sees that knows nothing of shards."""

    def divide(column: np.ndarray) -> np.ndarray:
        flat = column.reshape(len(column), -1).astype(np.int64)
        parts = rng.multinomial(flat.ravel(), np.full(n_parts, 1 / n_parts))
        parts = parts.reshape(*flat.shape, n_parts).transpose(0, 2, 1).reshape(len(flat) * n_parts, -1)
        return parts.astype(np.float64).reshape(len(column) * n_parts, *column.shape[1:])

    fields = [name for name in ShardCounts.__dataclass_fields__ if name != "names"]
    return ShardCounts(names=counts.names, **{name: divide(getattr(counts, name)) for name in fields})


def test_night(before: ShardCounts, since: ShardCounts) -> list[DriftTest]:
    """What the tests say of a night's shards."""
    is_second = np.repeat([False, True], [len(before.n_images_S), len(since.n_images_S)])
    tests, _ = find_drift(join(before, since), Groups(is_second, NO_PAIRS))
    return tests


@dataclass(frozen=True, slots=True)
class Setting:
    """How large nights are, and how alike shards."""

    n_before: int
    n_since: int
    n_images: int
    alikeness: float = 100.0

    @property
    def described(self) -> str:
        alike = "alike" if self.alikeness > 1000 else "unlike"
        return f"{self.n_since} shards, {self.n_before} before, {alike}"


def count_alarms(
    setting: Setting, shift: Callable[[Population], Population], n_nights: int, seed: int, n_parts: int = 1
) -> dict[str, int]:
    """On how many nights each test alarms, and any does."""
    alarms = dict.fromkeys(("any", *WHAT), 0)
    for night in range(n_nights):
        rng = np.random.default_rng([seed, night])
        population = Population(alikeness=setting.alikeness)
        before = draw_shards(population, setting.n_before, setting.n_images, rng)
        since = draw_shards(shift(population), setting.n_since, setting.n_images, rng)
        if n_parts > 1:
            before, since = (split(counts, n_parts, rng) for counts in (before, since))
        tests = test_night(before, since)
        alarms["any"] += any(test.is_drift for test in tests)
        for test in tests:
            alarms[test.what] += test.is_drift
    return alarms


# The stated shifts, in the words of the record.
SHIFTS: dict[str, Callable[[Population], Population]] = {
    "nothing": lambda population: population,
    "a name of 3 % of the images has 6 %": lambda population: replace(population, rare_to=2.0),
    "a name of 3 % of the images has 15 %": lambda population: replace(population, rare_to=5.0),
    "10 % of the frequent names' labels become rare ones": lambda population: replace(population, renamed=0.1),
    "20 % of the frequent names' labels become rare ones": lambda population: replace(population, renamed=0.2),
    "scores: a quarter of their spread": lambda population: replace(population, score=-1.5),
    "scores: half of their spread": lambda population: replace(population, score=-3.0),
    "half as many pixels": lambda population: replace(population, size=-1.0),
    "rejects: 1 % become 2 %": lambda population: replace(population, reject_rate=0.02),
    "rejects: 1 % become 5 %": lambda population: replace(population, reject_rate=0.05),
    "unfinished: 3 % become 4 %": lambda population: replace(population, unfinished_rate=0.04),
    "unfinished: 3 % become 6 %": lambda population: replace(population, unfinished_rate=0.06),
}
HEADER = ("night", "what moved", "nights", "alarms %", *(f"by {what} %" for what in WHAT))


def main() -> None:
    # Brings in torch, which those who import this file do not need.
    from record import environment, markdown_table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=1000)
    parser.add_argument("--power-nights", type=int, default=100)
    parser.add_argument("--permutations", type=int, default=drift_tests.N_PERMUTATIONS)
    parser.add_argument("--images", type=int, default=200, help="Of a shard, on average.")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    drift_tests.N_PERMUTATIONS = arguments.permutations
    n_images = arguments.images
    settings = (Setting(30, 6, n_images), Setting(60, 20, n_images), Setting(60, 20, n_images, alikeness=10_000))
    rows: list[tuple[object, ...]] = []

    def add(setting: Setting, what: str, n_nights: int, alarms: dict[str, int]) -> None:
        shares = [f"{100 * n / n_nights:.1f}" for n in alarms.values()]
        rows.append((setting.described, what, n_nights, *shares))
        print(*rows[-1], sep=" | ", flush=True)

    for seed, setting in enumerate(settings):
        add(setting, "nothing", arguments.nights, count_alarms(setting, SHIFTS["nothing"], arguments.nights, seed))
        control = count_alarms(setting, SHIFTS["nothing"], arguments.power_nights, seed, n_parts=20)
        add(setting, "nothing; control: a shard taken for 20", arguments.power_nights, control)
        for what, shift in list(SHIFTS.items())[1:]:
            add(setting, what, arguments.power_nights, count_alarms(setting, shift, arguments.power_nights, seed + 10))
    table = markdown_table(HEADER, rows)
    if arguments.out:
        title = "# How often the drift tests alarm"
        said = (
            f"A night's new shards against those of before, shards of about {arguments.images} images with "
            f"{N_LABELS} labels, {N_NAMES} names; alarm where p < {ALARM_P} after Holm's correction, "
            f"{arguments.permutations:,} permutations. Unlike shards differ in their mix of names by a Dirichlet "
            "distribution of weight 100, as folders by subject do; alike ones by weight 10,000, as those of images "
            "dealt by chance do. The first rows of each kind of night are false alarms, all others are power. Goal: "
            "false alarms on 1 % of the nights at most."
        )
        described = environment("cpu", shlex.join(["python", *sys.argv]))
        Path(arguments.out).write_text(f"{title}\n\n{said}\n\n{table}\n\n{described}\n")


if __name__ == "__main__":
    main()
