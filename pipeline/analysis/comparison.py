"""Two runs of a store side by side, on the images that both have labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.analysis.measures import ImageCounts, estimate_difference
from pipeline.analysis.reviewed import ReviewedCounts, ReviewedSample, estimate_reviewed_difference, name_reviews
from pipeline.analysis.truth import TruthKind, name_labels
from pipeline.catalog.connection import Connection, query_rows, read_sql, run_record
from pipeline.catalog.label_choice import shown_ranking
from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Samples of a run."""

    run: str
    n_images: int
    n_rejected: int

    @property
    def reject_rate(self) -> float:
        return self.n_rejected / self.n_images if self.n_images else 0.0


@dataclass(frozen=True, slots=True)
class NameChange:
    """Images on which both runs list a name, only the first (lost), only the second (gained)."""

    name: str
    n_both: int
    n_lost: int
    n_gained: int
    score_shift: float | None
    """How far the name's score moved, second run minus first, summed over the images on which both list it; None
    without such images."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second run against the first, at one k. Differences are second minus first."""

    a: RunCounts
    b: RunCounts
    k: int
    n_paired: int
    """Images that both runs have labelled. All other fields are over these."""
    n_judged: int
    """Images labelled by both runs that have a truth; of reviews, on which anything was judged."""
    differences: dict[str, Estimate]
    """How much each measure (pipeline.analysis.measures) differs, with paired bootstrap intervals; empty without a
    truth. Of reviews those of `pipeline.analysis.reviewed`, over all images of the run that the sample is of."""
    names: list[NameChange]
    """Names that either run lists, the most changed first."""
    is_same_ranking: bool
    """Whether both runs are ranked alike, so that their scores can be compared."""
    judged_shares: tuple[float, float] | None = None
    """Of reviews: the share of each run's first k names that anybody judged. Where they differ, so does what precision,
    F1 and `hit` are over."""

    @property
    def reject_rate_difference(self) -> float:
        return self.b.reject_rate - self.a.reject_rate

    @property
    def mean_score_shift(self) -> float | None:
        """Mean score of the second run minus the first, over labels that both list; None without such labels, or where
        scores cannot be compared."""
        n_both = sum(change.n_both for change in self.names)
        if not n_both or not self.is_same_ranking:
            return None
        return sum(change.score_shift or 0.0 for change in self.names) / n_both


def compare_runs(
    connection: Connection, run_a: str, run_b: str, k: int, truth: TruthKind, *, needs_common: bool = True
) -> Comparison:
    """Compares two runs. Raises TagstreamError where one is missing, no image is in both, or nothing was reviewed that
    is the truth.

    By reviews both runs are measured on the same judged images of one sample, which was drawn from either. What only
    the other run lists was judged where a reviewer saw or added it; the rest of its labels counts neither as right nor
    as wrong.

    Args:
        needs_common: without, runs that have no image in common are compared in their counts alone.
    """
    records = [run_record(connection, run) for run in (run_a, run_b)]
    first, second = (shown_ranking(connection, record["run"], record["labelling"]) for record in records)
    runs = [run_a, run_b]
    reviews = None
    if truth == "reviews":
        reviews = name_reviews(connection, runs)
    else:
        name_labels(connection, runs, truth)
    parameters = {"run_a": run_a, "run_b": run_b}
    connection.execute(read_sql("paired"), parameters)
    connection.execute(read_sql("listed_and_hit"))
    (n_paired,) = connection.execute("SELECT count(*) FROM judged").fetchone()
    if not n_paired and needs_common:
        raise TagstreamError(f"the runs {run_a} and {run_b} have no labelled image in common")
    n_judged, differences = _differ(connection, run_a, run_b, k) if reviews is None else _differ_by_reviews(reviews, k)
    changes = query_rows(connection, "changed_names", {**parameters, "k": k})
    return Comparison(
        a=_counts(connection, run_a),
        b=_counts(connection, run_b),
        k=k,
        n_paired=int(n_paired),
        n_judged=n_judged,
        differences=differences,
        names=[NameChange(**row) for row in changes],
        is_same_ranking=first == second,
        judged_shares=None if reviews is None else (reviews.judged_share(run_a, k), reviews.judged_share(run_b, k)),
    )


def _counts(connection: Connection, run: str) -> RunCounts:
    (row,) = query_rows(connection, "reject_rates", {"run": run})
    return RunCounts(run, row["n_images"], row["n_rejected"])


def _differ(connection: Connection, run_a: str, run_b: str, k: int) -> tuple[int, dict[str, Estimate]]:
    """How many images have a truth, and how much each measure differs on them."""
    kinds = query_rows(connection, "paired_counts", {"run_a": run_a, "run_b": run_b, "k": k})
    differences = estimate_difference(_kinds_of(kinds, "a"), _kinds_of(kinds, "b"))
    return sum(kind["n_images"] for kind in kinds), differences


def _differ_by_reviews(reviews: ReviewedSample, k: int) -> tuple[int, dict[str, Estimate]]:
    """As `_differ`, by what people say of drawn images."""
    nothing = ReviewedCounts.of([])
    a, b = (reviews.counts(run, [k]).get(k, nothing) for run in reviews.named.runs)
    return len(a.probability_I), estimate_reviewed_difference(a, b)


def _kinds_of(kinds: list[dict[str, Any]], run: str) -> ImageCounts:
    return ImageCounts.of(
        (kind["n_truth"], kind[f"n_hits_{run}"], kind[f"n_listed_{run}"], kind[f"n_hits_{run}"], kind["n_images"])
        for kind in kinds
    )
