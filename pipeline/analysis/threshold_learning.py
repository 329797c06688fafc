"""Thresholds learned from truth: for each name the lowest score from which on its labels are right as often as wanted.

Names with much evidence get a threshold of their own, names with little one near the threshold that is common to all.
How near is derived where it is computed, in `threshold_names.sql` and `threshold_strength.sql`. A name's counts flatter
its threshold, which was chosen on them. Thresholds are therefore judged on images that they were not learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.recall import RunAnalysis
from pipeline.analysis.reviewed import ReviewedCounts, ReviewedRun, estimate_reviewed
from pipeline.catalog.connection import Connection, query_rows, read_sql
from pipeline.catalog.label_choice import label_kinds
from pipeline.naming.thresholds import Thresholds, direction_of
from pipeline.naming.vocabulary import Vocabulary

_IMAGES_FOR_STEPS = 100_000
_STRENGTHS = [2**power for power in range(11)]
_BOTH_HALVES = (0, 1)
_WAYS = ("none", "common", "own")


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Labels that a threshold lets pass, on images with a truth.

    By reviews each label counts for as much as its image (`review_weights.sql`), and numbers are those of an even
    sample that would tell as much.
    """

    n_truth: float
    """True names of these images, listed or not."""
    n_listed: float
    """Labels that pass: each name of an image once. By reviews, those that were judged."""
    n_hits: float
    """Labels that pass and are true."""
    estimated: tuple[float, float] | None = None
    """The 95 % interval of the precision where it follows from how images were drawn; None takes Wilson's."""

    @property
    def precision(self) -> float | None:
        return self.n_hits / self.n_listed if self.n_listed else None

    @property
    def recall(self) -> float | None:
        return self.n_hits / self.n_truth if self.n_truth else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the precision."""
        return self.estimated or wilson_interval(self.n_hits, self.n_listed)


@dataclass(frozen=True, kw_only=True, slots=True)
class NameThreshold:
    """A name's threshold, and what it does on the images that it was learned from."""

    name: str
    threshold: float
    origin: str
    """own: the name has as many labels from the threshold on as the common evidence counts for, or more. shrunk: it has
    fewer, but they moved the threshold. common: it is the common one. never: no score reaches the target."""
    counts: Counts
    n_listed_before: float
    """Labels of the name without a threshold."""
    n_hits_before: float
    """Labels of the name without a threshold that are true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedThresholds:
    """What `learn_thresholds` found."""

    thresholds: Thresholds
    strength: float
    """How many labels of a name the evidence of all names counts for (`threshold_strength.sql`)."""
    names: list[NameThreshold]
    """All listed names, the most listed first."""
    judged: dict[str, Counts]
    """What passes on images that the thresholds were not learned from: without thresholds ("none"), with the common one
    ("common"), with one for each name ("own")."""


def learn_thresholds(
    analysis: RunAnalysis | ReviewedRun, vocabulary: Vocabulary, target_precision: float
) -> LearnedThresholds:
    """Learns the thresholds of a run from its truth.

    Args:
        vocabulary: the one that the store was opened with.
        target_precision: above 0, at most 1.
    """
    (record,) = (row for row in query_rows(analysis.connection, "threshold_runs", {}) if row["run"] == analysis.run)
    cells = _count_by_step(analysis)
    is_reviewed = isinstance(analysis, ReviewedRun)
    judged = (_cross_fit_reviewed if is_reviewed else _cross_fit)(cells, target_precision)
    fit = cells.fit(_BOTH_HALVES, target_precision)
    scores = cells.scores()
    names = [_named(row, scores, fit) for row in fit.count_names()]
    thresholds = Thresholds(
        run=analysis.run,
        model_fingerprint=record["model_fingerprint"],
        ranking=analysis.ranking.name,
        direction=direction_of(analysis.ranking),
        truth=analysis.truth,
        vocabulary=vocabulary.version,
        labels=label_kinds(analysis.connection),
        target_precision=target_precision,
        common=scores[fit.common_step],
        thresholds={name.name: name.threshold for name in sorted(names, key=lambda name: name.name)},
    )
    return LearnedThresholds(thresholds=thresholds, strength=fit.strength, names=names, judged=judged)


def wilson_interval(n_hits: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share; the whole of 0 to 1 where nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = n_hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - margin), min(1.0, centre + margin)


@dataclass(frozen=True, slots=True)
class _Cells:
    """How often each name is listed and right at each step of the scores, in each half of the images.

    The tables `steps` and `cells`; `_count_by_step` makes them.
    """

    connection: Connection
    goodness: NDArray[np.float32]
    """How good the score of each step is, the better the higher; ascending."""
    lowest_first: bool

    @property
    def never(self) -> int:
        """The step that no score reaches."""
        return len(self.goodness)

    def scores(self) -> list[float]:
        """The score of each step, in its shortest notation; the last is that of `never`."""
        sign = -1 if self.lowest_first else 1
        return [*(float(str(sign * score)) for score in self.goodness), sign * math.inf]

    def fit(self, halves: Sequence[int], target: float) -> _Fit:
        """Learns from some halves of the images."""
        connection, learned_from = self.connection, {"halves": list(halves)}
        connection.execute(read_sql("threshold_pooled"), learned_from)
        (step,) = connection.execute(
            "SELECT min(step) FROM pooled WHERE precision >= $target", {"target": target}
        ).fetchone()
        common_step = self.never if step is None else int(step)
        (row,) = query_rows(connection, "threshold_strength", {**learned_from, "strengths": _STRENGTHS})
        strength = float(row["strength"] or _STRENGTHS[-1])
        steps = {"target": target, "strength": strength, "common_step": common_step, "n_steps": self.never}
        connection.execute(read_sql("threshold_names"), {**learned_from, **steps})
        return _Fit(self, common_step, strength)


@dataclass(frozen=True, slots=True)
class _Fit:
    """Thresholds as steps, those of the names in the table `name_steps`. The next fit takes over the table."""

    cells: _Cells
    common_step: int
    strength: float

    def judge(self, half: int) -> dict[str, Any]:
        """Counts of one half of the images: n_truth, and n_listed and n_hits of each way to set thresholds."""
        (row,) = query_rows(self.cells.connection, "threshold_judged", {"half": half, "common_step": self.common_step})
        return row

    def judge_each(self, half: int) -> list[dict[str, Any]]:
        """The same of each reviewed image by itself, with its probability and weight."""
        return query_rows(self.cells.connection, "reviewed_judged", {"half": half, "common_step": self.common_step})

    def count_names(self) -> list[dict[str, Any]]:
        """Each listed name with its step and its counts on all images, the most listed first."""
        return query_rows(self.cells.connection, "threshold_counts", {})


def _count_by_step(analysis: RunAnalysis | ReviewedRun) -> _Cells:
    is_reviewed = isinstance(analysis, ReviewedRun)
    connection, lowest_first = analysis.connection, analysis.ranking.lowest_first
    parameters = {"run": analysis.run, "lowest_first": lowest_first}
    connection.execute(read_sql("reviewed_occurrences" if is_reviewed else "threshold_occurrences"))
    if isinstance(analysis, ReviewedRun):
        connection.execute(read_sql("review_weights"), analysis.reviews.which)
    one_in = max(1, analysis.n_images // _IMAGES_FOR_STEPS)
    connection.execute(read_sql("threshold_steps"), {**parameters, "one_in": one_in})
    goodness = connection.execute("SELECT goodness FROM steps ORDER BY step").fetchnumpy()["goodness"]

    # A join would sort all occurrences.
    def step_of(scores: pa.ChunkedArray) -> pa.Array:
        return pa.array(np.maximum(np.searchsorted(goodness, scores.to_numpy(), side="right") - 1, 0), pa.int32())

    connection.create_function("step_of", step_of, ["FLOAT"], "INTEGER", type="arrow")
    try:
        connection.execute(read_sql("reviewed_steps" if is_reviewed else "threshold_cells"), parameters)
    finally:
        connection.remove_function("step_of")
    connection.execute(read_sql("reviewed_cells" if is_reviewed else "threshold_truths"))
    return _Cells(connection, goodness, lowest_first)


def _cross_fit(cells: _Cells, target: float) -> dict[str, Counts]:
    """What thresholds do on images that they were not learned from: those of each half, applied to the other."""
    totals = dict.fromkeys(("n_truth", *(f"n_{what}_{way}" for what in ("listed", "hits") for way in _WAYS)), 0)
    for half in _BOTH_HALVES:
        counts = cells.fit((1 - half,), target).judge(half)
        totals = {name: total + int(counts[name] or 0) for name, total in totals.items()}
    return {
        way: Counts(n_truth=totals["n_truth"], n_listed=totals[f"n_listed_{way}"], n_hits=totals[f"n_hits_{way}"])
        for way in _WAYS
    }


def _cross_fit_reviewed(cells: _Cells, target: float) -> dict[str, Counts]:
    """As `_cross_fit`, of reviewed images: each counts for its weight, and the precision has the interval that follows
    from how the images were drawn."""
    rows = [row for half in _BOTH_HALVES for row in cells.fit((1 - half,), target).judge_each(half)]
    judged = {}
    for way in _WAYS:
        of_way = [{**row, "n_listed": row[f"n_listed_{way}"], "n_hits": row[f"n_hits_{way}"]} for row in rows]
        found = estimate_reviewed(ReviewedCounts.of(of_way)).get("precision_micro")
        sums = {name: sum(row["weight"] * row[name] for row in of_way) for name in ("n_truth", "n_listed", "n_hits")}
        judged[way] = Counts(**sums, estimated=(found.low, found.high) if found else None)
    return judged


def _named(row: Mapping[str, Any], scores: Sequence[float], fit: _Fit) -> NameThreshold:
    if row["step"] == fit.cells.never:
        origin = "never"
    elif row["step"] == fit.common_step:
        origin = "common"
    else:
        origin = "own" if row["n_listed"] >= fit.strength else "shrunk"
    return NameThreshold(
        name=row["name"],
        threshold=scores[row["step"]],
        origin=origin,
        counts=Counts(n_truth=row["n_truth"], n_listed=row["n_listed"], n_hits=row["n_hits"]),
        n_listed_before=row["n_listed_before"],
        n_hits_before=row["n_hits_before"],
    )
