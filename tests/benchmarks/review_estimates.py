"""Whether what a review of drawn images says of a run is right: bias and coverage of its estimates, by simulation.

A run whose truth is known is drawn from a thousand times, in each way that `tagstream sample` draws; the drawn images
are reviewed by the truth. Means of the estimates are held against what all images give, and 95 % intervals are counted
that hold it. A second run, which finds a little more, is measured on the same draws: what `compare` estimates.

    python tests/benchmarks/review_estimates.py --out tests/benchmarks/results/review_estimates.md
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from record import environment, markdown_table

from pipeline.analysis.reviewed import (
    ReviewedCounts,
    _measures,
    estimate_reviewed,
    estimate_reviewed_difference,
)
from pipeline.estimate import Estimate
from pipeline.reviews.drawing import WAYS, draw_by_size

K = 5
HEADER = ("by", "measure", "all images", "mean estimate", "bias %", "95 % intervals that hold it", "mean width")
MEASURES = ("precision_micro", "recall_micro", "recall_macro", "f1_macro", "hit")
B_MINUS_A = ("precision_micro", "recall_macro")


@dataclass(frozen=True, slots=True)
class Population:
    """Images whose truth is known, and what each way of drawing makes of them."""

    counts: ReviewedCounts
    counts_of_b: ReviewedCounts
    """Of the second run."""
    sizes: dict[str, np.ndarray]

    def drawn(self, places: np.ndarray, probability: np.ndarray) -> list[ReviewedCounts]:
        """What is reviewed of some images, of either run."""
        return [
            ReviewedCounts(probability, *(column[places] for column in (of.n_truth_I, of.n_listed_I, of.n_hits_I)))
            for of in (self.counts, self.counts_of_b)
        ]


def make_population(n_images: int, seed: int = 0) -> Population:
    """Images with one to six true names of Zipf's frequencies, which easy images list more often than hard ones."""
    rng = np.random.default_rng(seed)
    n_truth = rng.integers(1, 7, n_images)
    easiness = rng.beta(3, 2, n_images)
    n_found = rng.binomial(n_truth, easiness)
    n_listed = np.minimum(K, n_found + rng.binomial(K, 0.6, n_images))
    n_hits = np.minimum(n_found, n_listed)
    # Of what the first run misses the second one finds a tenth, each in the place of a label that is not true.
    n_more = np.minimum(rng.binomial(n_truth - n_hits, 0.1), n_listed - n_hits)
    rarest = rng.zipf(1.6, n_images).clip(1, 5000)
    counts, counts_of_b = (
        ReviewedCounts(np.ones(n_images), *(column.astype(np.float64) for column in (n_truth, n_listed, hits)))
        for hits in (n_hits, n_hits + n_more)
    )
    doubt = easiness * (1 - easiness) * n_listed
    disagreement = rng.beta(1, 3, n_images) * (1.2 - easiness)
    sizes = {
        "random": np.ones(n_images),
        "uncertain": doubt,
        "disagreement": disagreement,
        "rare": rarest / rarest.max(),
    }
    return Population(counts, counts_of_b, sizes)


def simulate(population: Population, by: str, n: int, n_draws: int) -> list[tuple[object, ...]]:
    """Rows of HEADER for one way of drawing."""
    n_images = len(population.counts.n_truth_I)
    connection = duckdb.connect()
    connection.register("sizes", pa.table({"image_id": np.arange(n_images), "size": population.sizes[by]}))
    connection.execute("CREATE TEMP TABLE draw_sizes AS SELECT * FROM sizes")
    found: dict[str, list[Estimate]] = {}
    for seed in range(n_draws):
        _, drawn = draw_by_size(connection, n, seed)
        a, b = population.drawn(*(drawn.column(name).to_numpy() for name in ("image_id", "probability")))
        for name, estimate in estimate_reviewed(a).items():
            found.setdefault(name, []).append(estimate)
        for name, estimate in estimate_reviewed_difference(a, b).items():
            found.setdefault(f"{name}, B minus A", []).append(estimate)
    return [row_of(by, name, whole, scale, found[name]) for name, (whole, scale) in truths(population).items()]


def truths(population: Population) -> dict[str, tuple[float, float]]:
    """What all images give, and what a bias is a share of: of a difference the first run's measure."""
    ones = np.ones((1, len(population.counts.n_truth_I)))
    a, b = (
        {name: float(value_1[0]) for name, value_1 in _measures(counts, ones).items()}
        for counts in (population.counts, population.counts_of_b)
    )
    differences = {f"{name}, B minus A": (b[name] - a[name], a[name]) for name in B_MINUS_A}
    return {name: (a[name], a[name]) for name in MEASURES} | differences


def row_of(by: str, name: str, whole: float, scale: float, estimates: list[Estimate]) -> tuple[object, ...]:
    value, low, high = np.array([(one.value, one.low, one.high) for one in estimates]).T
    held = np.mean((low <= whole) & (whole <= high))
    bias = (value.mean() - whole) / scale * 100
    numbers = (f"{whole:.4f}", f"{value.mean():.4f}", f"{bias:+.2f}", f"{held:.1%}", f"{(high - low).mean():.3f}")
    return (by, name, *numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    population = make_population(arguments.images)
    rows = [row for by in WAYS for row in simulate(population, by, arguments.n, arguments.draws)]
    table = markdown_table(HEADER, rows)
    print(table)
    if arguments.out:
        title = "# What reviews of drawn images say of all images"
        drawn = f"{arguments.draws:,} draws of about {arguments.n} of {arguments.images:,} images whose truth is known"
        scale = (
            "The bias of a difference is given in percent of the first run's measure. Goals: a bias of 1 % at most, "
            "intervals that hold the truth in 93 to 97 % of the draws."
        )
        described = environment("cpu", shlex.join(["python", *sys.argv]))
        Path(arguments.out).write_text(f"{title}\n\n{drawn}, k = {K}. {scale}\n\n{table}\n\n{described}\n")


if __name__ == "__main__":
    main()
