"""Whether what a review of drawn images says of a run is right: bias and coverage of its estimates, by simulation.

A run whose truth is known is drawn from a thousand times, in each way that `tagstream sample` draws; the drawn images
are reviewed by the truth. Means of the estimates are held against what all images give, and 95 % intervals are counted
that hold it.

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

from pipeline.analysis.reviewed import ReviewedCounts, _measures, estimate_reviewed
from pipeline.reviews.drawing import WAYS, draw_by_size

K = 5
HEADER = ("by", "measure", "all images", "mean estimate", "bias %", "95 % intervals that hold it", "mean width")
MEASURES = ("precision_micro", "recall_micro", "recall_macro", "hit")


@dataclass(frozen=True, slots=True)
class Population:
    """Images whose truth is known, and what each way of drawing makes of them."""

    counts: ReviewedCounts
    sizes: dict[str, np.ndarray]


def make_population(n_images: int, seed: int = 0) -> Population:
    """Images with one to six true names of Zipf's frequencies, which easy images list more often than hard ones."""
    rng = np.random.default_rng(seed)
    n_truth = rng.integers(1, 7, n_images)
    easiness = rng.beta(3, 2, n_images)
    n_found = rng.binomial(n_truth, easiness)
    n_listed = np.minimum(K, n_found + rng.binomial(K, 0.6, n_images))
    n_hits = np.minimum(n_found, n_listed)
    rarest = rng.zipf(1.6, n_images).clip(1, 5000)
    counts = ReviewedCounts(np.ones(n_images), *(column.astype(np.float64) for column in (n_truth, n_listed, n_hits)))
    doubt = easiness * (1 - easiness) * n_listed
    disagreement = rng.beta(1, 3, n_images) * (1.2 - easiness)
    sizes = {
        "random": np.ones(n_images),
        "uncertain": doubt,
        "disagreement": disagreement,
        "rare": rarest / rarest.max(),
    }
    return Population(counts, sizes)


def simulate(population: Population, by: str, n: int, n_draws: int) -> list[tuple[object, ...]]:
    """Rows of HEADER for one way of drawing."""
    counts = population.counts
    whole = {name: float(value[0]) for name, value in _measures(counts, np.ones((1, len(counts.n_truth_I)))).items()}
    connection = duckdb.connect()
    sizes = pa.table({"image_id": np.arange(len(counts.n_truth_I)), "size": population.sizes[by]})
    connection.register("sizes", sizes)
    connection.execute("CREATE TEMP TABLE draw_sizes AS SELECT * FROM sizes")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in MEASURES}
    for seed in range(n_draws):
        _, drawn = draw_by_size(connection, n, seed)
        places = drawn.column("image_id").to_numpy()
        reviewed = ReviewedCounts(
            drawn.column("probability").to_numpy(),
            *(column[places] for column in (counts.n_truth_I, counts.n_listed_I, counts.n_hits_I)),
        )
        estimates = estimate_reviewed(reviewed)
        for name in MEASURES:
            found[name].append((estimates[name].value, estimates[name].low, estimates[name].high))
    rows: list[tuple[object, ...]] = []
    for name, estimates in found.items():
        value, low, high = np.array(estimates).T
        held = np.mean((low <= whole[name]) & (whole[name] <= high))
        bias = (value.mean() / whole[name] - 1) * 100
        rows.append(
            (
                by,
                name,
                f"{whole[name]:.4f}",
                f"{value.mean():.4f}",
                f"{bias:+.2f}",
                f"{held:.1%}",
                f"{(high - low).mean():.3f}",
            )
        )
    return rows


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
        described = environment("cpu", shlex.join(["python", *sys.argv]))
        Path(arguments.out).write_text(f"{title}\n\n{drawn}, k = {K}.\n\n{table}\n\n{described}\n")


if __name__ == "__main__":
    main()
