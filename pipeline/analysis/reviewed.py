"""Precision and recall by what people say of images that were drawn for review.

An image that was drawn with probability p stands for 1 / p images. A sum over all images is estimated by the weighted
sum over the drawn ones (Horvitz and Thompson, 1952), a share by the ratio of two such sums (Hajek). Images that were
drawn and not reviewed are taken to be like the others.

Shape suffixes: I images, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from model.choices import Ranking
from pipeline.analysis.measures import INTERVAL, N_RESAMPLES, Floats, share
from pipeline.analysis.truth import NamedTruth, TruthKind
from pipeline.catalog.connection import Connection, query_rows, read_sql, run_record
from pipeline.catalog.label_choice import shown_ranking
from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate

_SEED = 0
_COUNTS = ("probability", "n_truth", "n_listed", "n_hits")


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

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]]) -> ReviewedCounts:
        """Counts from rows of probability, n_truth, n_listed, n_hits."""
        return cls(*np.array([[row[name] for name in _COUNTS] for row in rows], np.float64).reshape(-1, 4).T)


@dataclass(frozen=True, slots=True)
class ReviewedSample:
    """What people say of a sample, as tables of the connection beside what runs list; `name_reviews` makes it.

    A connection has one at a time: the next takes over its tables.
    """

    named: NamedTruth
    drawn_from: str
    """The run that the sample was drawn from."""
    sample: str
    n_drawn: int
    n_reviewed: int
    """Images of the sample that anybody reviewed."""
    n_samples: int
    """Samples of the runs that anybody reviewed; the one that was drawn last is measured."""

    @property
    def connection(self) -> Connection:
        return self.named.connection

    @property
    def which(self) -> dict[str, str]:
        """The sample as queries ask for it."""
        return {"drawn_from": self.drawn_from, "sample": self.sample}

    def counts(self, run: str, ks: Sequence[int]) -> dict[int, ReviewedCounts]:
        """What was reviewed of the first k names of a run, at each k; images in one order, whatever the run."""
        rows = query_rows(self.connection, "reviewed_counts", {**self.which, "run": run, "ks": sorted(set(ks))})
        return {k: ReviewedCounts.of(list(of_k)) for k, of_k in groupby(rows, key=lambda row: int(row["k"]))}

    def judged_share(self, run: str, k: int) -> float:
        """The share of a run's first k names, of the reviewed images, that anybody judged; 1 where it lists none."""
        (row,) = query_rows(self.connection, "reviewed_share", {**self.which, "run": run, "k": k})
        return 1.0 if row["judged_share"] is None else float(row["judged_share"])


@dataclass(frozen=True, slots=True)
class ReviewedRun:
    """A run beside the reviews of one of its samples; `analyse_reviews` makes it."""

    reviews: ReviewedSample
    ranking: Ranking
    """What the run's labels are ranked by."""

    @property
    def run(self) -> str:
        return self.reviews.drawn_from

    @property
    def truth(self) -> TruthKind:
        return self.reviews.named.truth

    @property
    def n_images(self) -> int:
        """Images on which anything was judged."""
        return self.reviews.named.n_images

    @property
    def connection(self) -> Connection:
        return self.reviews.connection

    def measure(self, ks: Sequence[int]) -> dict[int, dict[str, Estimate]]:
        """All measures of `estimate_reviewed` at each k."""
        return {k: estimate_reviewed(counts) for k, counts in self.reviews.counts(self.run, ks).items()}


def analyse_reviews(connection: Connection, run: str) -> ReviewedRun:
    """Names what people say of the sample of a run that was drawn last of those that anybody reviewed.

    Raises TagstreamError where there is no such run, or nothing was reviewed.
    """
    record = run_record(connection, run)
    return ReviewedRun(name_reviews(connection, [run]), shown_ranking(connection, run, record["labelling"]))


def name_reviews(connection: Connection, runs: Sequence[str]) -> ReviewedSample:
    """Gives names to what one or two runs list, and to what people say of the sample of theirs that was drawn last.

    Reviews of the sample's images count, whichever of the runs they were imported to.

    Raises TagstreamError where nothing was reviewed.
    """
    samples = query_rows(connection, "reviewed_samples", {"runs": list(runs)})
    if not samples:
        raise TagstreamError(
            f"nobody reviewed an image of run {' or '.join(runs)} that was drawn for it; draw some with "
            "`tagstream sample`, and import what people say of them with `tagstream review import`"
        )
    latest = samples[-1]
    which = {"drawn_from": latest["run"], "sample": latest["sample"], "runs": list(runs)}
    connection.execute(read_sql("reviewed_names"), which)
    for query in ("reviewed_truth", "names"):
        connection.execute(read_sql(query))
    connection.execute(read_sql("folded_images"), {"run_a": runs[0], "run_b": runs[-1]})
    connection.execute(read_sql("listed"))
    ((n_judged,),) = connection.execute("SELECT count(*) FROM judged").fetchall()
    return ReviewedSample(
        named=NamedTruth(connection, tuple(runs), "reviews", int(n_judged)),
        drawn_from=latest["run"],
        sample=latest["sample"],
        n_drawn=latest["n_drawn"],
        n_reviewed=latest["n_reviewed"],
        n_samples=len(samples),
    )


def estimate_reviewed(counts: ReviewedCounts) -> dict[str, Estimate]:
    """Measures of all images from the reviewed ones, by name, with 95 % intervals.

    Precision is the share of judged labels that are true, recall the share of true names, of those that anybody judged,
    that are among the first k, F1 their harmonic mean. Micro is over all labels together, macro the mean over the
    images that have any; of F1, over those of which anything is true. `hit` is the share of images with a true label
    among those with a judged one. A measure of nothing is left out.

    Intervals are those of resampled weights.
    """
    return _estimate(counts.probability_I, lambda weights_RI: _measures(counts, weights_RI))


def estimate_reviewed_difference(a: ReviewedCounts, b: ReviewedCounts) -> dict[str, Estimate]:
    """Measures of `estimate_reviewed`, second minus first, for the same images in one order.

    The same weights are drawn for both, so what makes an image hard cancels out.
    """

    def difference(weights_RI: Floats) -> dict[str, Floats]:
        first, second = _measures(a, weights_RI), _measures(b, weights_RI)
        return {name: second[name] - first[name] for name in first}

    return _estimate(a.probability_I, difference)


def resample_weights(probability_I: Floats, n_resamples: int) -> Floats:
    """Weights of the drawn images in each resample, [R, I].

    Each image was drawn by itself. So each weight gets a factor of its own, of mean 1 and variance 1 - p, where p is
    how likely the image was to be drawn: weighted sums scatter as drawing again would let them.
    """
    shift_RI = np.random.default_rng(_SEED).poisson(1.0, (n_resamples, len(probability_I))) - 1.0
    weights_RI: Floats = (1 + shift_RI * np.sqrt(1 - probability_I)) / probability_I
    return weights_RI


def _estimate(probability_I: Floats, measure: Callable[[Floats], dict[str, Floats]]) -> dict[str, Estimate]:
    """What is measured under the weights of the drawn images, and how it scatters under resampled ones."""
    observed = measure(1 / probability_I[None, :])
    resampled = measure(resample_weights(probability_I, N_RESAMPLES))
    return {
        name: Estimate(float(value_1[0]), *map(float, np.nanpercentile(resampled[name], INTERVAL)))
        for name, value_1 in observed.items()
        if np.isfinite(value_1[0])
    }


def _measures(counts: ReviewedCounts, weights_RI: Floats) -> dict[str, Floats]:
    """Each measure, [R], under these weights of the images."""
    has_truth_I, has_listed_I = counts.n_truth_I > 0, counts.n_listed_I > 0
    f1_I = has_truth_I * share(2 * counts.n_hits_I, counts.n_truth_I + counts.n_listed_I)
    recall = _ratio(weights_RI @ counts.n_hits_I, weights_RI @ counts.n_truth_I)
    precision = _ratio(weights_RI @ counts.n_hits_I, weights_RI @ counts.n_listed_I)
    return {
        "recall_macro": _ratio(weights_RI @ share(counts.n_hits_I, counts.n_truth_I), weights_RI @ has_truth_I),
        "precision_macro": _ratio(weights_RI @ share(counts.n_hits_I, counts.n_listed_I), weights_RI @ has_listed_I),
        "f1_macro": _ratio(weights_RI @ f1_I, weights_RI @ has_truth_I),
        "recall_micro": recall,
        "precision_micro": precision,
        "f1_micro": _ratio(2 * recall * precision, recall + precision),
        "hit": _ratio(weights_RI @ (counts.n_hits_I > 0), weights_RI @ has_listed_I),
    }


def _ratio(part_R: Floats, whole_R: Floats) -> Floats:
    """part / whole, not a number where there is no whole."""
    return np.divide(part_R, whole_R, out=np.full(np.shape(whole_R), np.nan), where=whole_R > 0)
