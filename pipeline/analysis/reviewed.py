"""Precision and recall by what people say of images that were drawn for review.

An image that was drawn with probability p stands for 1 / p images. A sum over all images is estimated by the weighted
sum over the drawn ones (Horvitz and Thompson, 1952), a share by the ratio of two such sums (Hajek). Images that were
drawn and not reviewed are taken to be like the others.

Shape suffixes: I images, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from pipeline.analysis.measures import INTERVAL, N_RESAMPLES, Floats, share
from pipeline.catalog.connection import Connection, query_rows, read_sql, run_record
from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate

_SEED = 0


@dataclass(frozen=True, slots=True)
class ReviewedCounts:
    """What was reviewed at one k, [I] each.

    How likely each image was to be drawn; how many names are true of it, as far as anybody judged; how many of its
    first k names were judged, and how many of these are true.
    """

    probability_I: Floats
    n_truth_I: Floats
    n_listed_I: Floats
    n_hits_I: Floats


@dataclass(frozen=True, slots=True)
class ReviewedRun:
    """A run beside the reviews of one of its samples; `analyse_reviews` makes it."""

    connection: Connection
    run: str
    sample: str
    n_reviewed: int
    """Images of the sample that anybody reviewed."""
    n_drawn: int
    n_samples: int
    """Samples of the run that anybody reviewed; the one that was drawn last is measured."""

    def measure(self, ks: Sequence[int]) -> dict[int, dict[str, Estimate]]:
        """All measures of `estimate_reviewed` at each k."""
        asked = {"run": self.run, "sample": self.sample, "ks": sorted(set(ks))}
        rows = query_rows(self.connection, "reviewed_counts", asked)
        names = ("probability", "n_truth", "n_listed", "n_hits")
        return {
            k: estimate_reviewed(
                ReviewedCounts(*np.array([[row[name] for name in names] for row in of_k], np.float64).T)
            )
            for k, of_k in groupby(rows, key=lambda row: int(row["k"]))
        }


def analyse_reviews(connection: Connection, run: str) -> ReviewedRun:
    """Finds the sample of a run that was drawn last of those that anybody reviewed, and names what is true of it.

    Raises TagstreamError where there is no such run, or nothing was reviewed.
    """
    run_record(connection, run)
    reviewed = {row["sample"]: row["n_reviewed"] for row in query_rows(connection, "reviewed_samples", {"run": run})}
    samples = [row for row in query_rows(connection, "run_samples", {"run": run}) if row["sample"] in reviewed]
    if not samples:
        raise TagstreamError(
            f"nobody reviewed an image of run {run} that was drawn for it; draw some with `tagstream sample`, and "
            "import what people say of them with `tagstream review import`"
        )
    sample, n_drawn = samples[-1]["sample"], samples[-1]["n_drawn"]
    connection.execute(read_sql("reviewed_names"), {"run": run, "sample": sample})
    connection.execute(read_sql("reviewed_truth"))
    connection.execute(read_sql("names"))
    connection.execute(read_sql("folded_images"), {"run_a": run, "run_b": run})
    connection.execute(read_sql("listed"))
    return ReviewedRun(connection, run, sample, reviewed[sample], n_drawn, len(samples))


def estimate_reviewed(counts: ReviewedCounts) -> dict[str, Estimate]:
    """Measures of all images from the reviewed ones, by name, with 95 % intervals.

    Precision is the share of judged labels that are true, recall the share of true names, of those that anybody judged,
    that are among the first k. Micro is over all labels together, macro the mean over the images that have any. `hit`
    is the share of images with a true label among those with a judged one. A measure of nothing is left out.

    Intervals are those of resampled weights.
    """
    observed = _measures(counts, 1 / counts.probability_I[None, :])
    resampled = _measures(counts, resample_weights(counts.probability_I, N_RESAMPLES))
    return {
        name: Estimate(float(value_1[0]), *map(float, np.nanpercentile(resampled[name], INTERVAL)))
        for name, value_1 in observed.items()
        if np.isfinite(value_1[0])
    }


def resample_weights(probability_I: Floats, n_resamples: int) -> Floats:
    """Weights of the drawn images in each resample, [R, I].

    Each image was drawn by itself. So each weight gets a factor of its own, of mean 1 and variance 1 - p, where p is
    how likely the image was to be drawn: weighted sums scatter as drawing again would let them.
    """
    shift_RI = np.random.default_rng(_SEED).poisson(1.0, (n_resamples, len(probability_I))) - 1.0
    weights_RI: Floats = (1 + shift_RI * np.sqrt(1 - probability_I)) / probability_I
    return weights_RI


def _measures(counts: ReviewedCounts, weights_RI: Floats) -> dict[str, Floats]:
    """Each measure, [R], under these weights of the images."""
    has_truth_I, has_listed_I = counts.n_truth_I > 0, counts.n_listed_I > 0
    recall = _ratio(weights_RI @ counts.n_hits_I, weights_RI @ counts.n_truth_I)
    precision = _ratio(weights_RI @ counts.n_hits_I, weights_RI @ counts.n_listed_I)
    return {
        "recall_macro": _ratio(weights_RI @ share(counts.n_hits_I, counts.n_truth_I), weights_RI @ has_truth_I),
        "precision_macro": _ratio(weights_RI @ share(counts.n_hits_I, counts.n_listed_I), weights_RI @ has_listed_I),
        "recall_micro": recall,
        "precision_micro": precision,
        "f1_micro": _ratio(2 * recall * precision, recall + precision),
        "hit": _ratio(weights_RI @ (counts.n_hits_I > 0), weights_RI @ has_listed_I),
    }


def _ratio(part_R: Floats, whole_R: Floats) -> Floats:
    """part / whole, not a number where there is no whole."""
    return np.divide(part_R, whole_R, out=np.full(np.shape(whole_R), np.nan), where=whole_R > 0)
