"""Thresholds learned from truth: the lowest score from which on labels are right as often as wanted.

Precision from a score on is the share of hits among the listed occurrences of that score or a better one; an occurrence
is a name that an image with a truth lists, once, with its best score. The *common* threshold is the worst score from
which on the precision of all names together (the pooled one) reaches the target.

A *name's* own threshold is found in the same way, from its precision shrunk towards the pooled one. With n occurrences
and h hits from a score on, that is the mean of the posterior of a beta prior of mean p and strength m,

    (h + m * p) / (n + m).

- p is the pooled precision from this score on, with its odds multiplied by how much oftener (or more seldom) than
  expected the name was right *below* it. Expected is what all names reach at such scores; the name's hit rate there is
  shrunk to that with the same m. So a name that is always wrong does not get the benefit of the doubt at its topmost
  score, and no occurrence counts twice.
- m, one for all names, is the largest that their hit rates, held against those expected at their scores, do not speak
  against (beta-binomial likelihood, 95 %): where names are alike, or little is known, they share the common threshold.

A name without evidence thus gets the common threshold exactly, a name with n far above m its own. None is set below
both the common one and the name's worst score. A name that reaches the target nowhere gets a threshold that no score
reaches.

Scores are those that occur, as long as hits and misses are at most a thousand each; of more, their thousandths. What a
name's counts show flatters it, since the threshold was chosen on them. How good thresholds are is therefore measured
by cross-fitting: those learned from one half of the images are applied to the other half, and the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.analysis.recall import RunAnalysis
from pipeline.catalog.connection import Connection, query_rows, read_sql
from pipeline.naming.thresholds import Thresholds, direction_of
from pipeline.naming.vocabulary import Vocabulary

_IMAGES_FOR_STEPS = 100_000
_STRENGTHS = [2**power for power in range(11)]
_BOTH_HALVES = (0, 1)
_WAYS = ("none", "common", "own")


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Labels that a threshold lets pass, on images with a truth."""

    n_truth: int
    """True names of these images, listed or not."""
    n_listed: int
    n_hits: int

    @property
    def precision(self) -> float | None:
        return self.n_hits / self.n_listed if self.n_listed else None

    @property
    def recall(self) -> float | None:
        return self.n_hits / self.n_truth if self.n_truth else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of the precision, 95 %."""
        return wilson_interval(self.n_hits, self.n_listed)


@dataclass(frozen=True, kw_only=True, slots=True)
class NameThreshold:
    """A name's threshold, and what it does on the images that it was learned from."""

    name: str
    threshold: float
    origin: str
    """own: the name's occurrences from the threshold on are as many as the prior's strength, or more; shrunk: fewer,
    but its occurrences moved it; common: it is the common one; never: no score reaches the target."""
    counts: Counts
    n_listed_before: int
    """Without a threshold."""
    n_hits_before: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedThresholds:
    """What `learn_thresholds` found."""

    thresholds: Thresholds
    strength: float
    """Of the prior, in occurrences."""
    names: list[NameThreshold]
    """The most listed first."""
    judged: dict[str, Counts]
    """By cross-fitting: without thresholds ("none"), with the common one ("common"), one for each name ("own")."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """The common step of some images, and how strong the prior is; the names' steps are in the table `name_steps`."""

    common_step: int
    strength: float


def learn_thresholds(analysis: RunAnalysis, vocabulary: Vocabulary, target_precision: float) -> LearnedThresholds:
    """Learns the thresholds of a run from its truth; see the module.

    Args:
        vocabulary: the one that the store was opened with.
        target_precision: above 0, at most 1.
    """
    connection = analysis.connection
    (record,) = (row for row in query_rows(connection, "threshold_runs", {}) if row["run"] == analysis.run)
    lowest_first = analysis.ranking.lowest_first
    n_steps = _count_by_step(analysis, lowest_first)
    judged = _cross_fit(connection, target_precision, n_steps)
    fit = _fit(connection, _BOTH_HALVES, target_precision, n_steps)
    scores = _scores(connection, lowest_first)
    names = [_named(row, scores, fit, n_steps) for row in query_rows(connection, "threshold_counts", {})]
    thresholds = Thresholds(
        run=analysis.run,
        model_fingerprint=record["model_fingerprint"],
        ranking=analysis.ranking.name,
        direction=direction_of(analysis.ranking),
        truth=analysis.truth,
        vocabulary=vocabulary.version,
        target_precision=target_precision,
        common=scores[fit.common_step],
        thresholds={name.name: name.threshold for name in sorted(names, key=lambda name: name.name)},
    )
    return LearnedThresholds(thresholds=thresholds, strength=fit.strength, names=names, judged=judged)


def wilson_interval(n_hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share; the whole of 0 to 1 where nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = n_hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - margin), min(1.0, centre + margin)


def _count_by_step(analysis: RunAnalysis, lowest_first: bool) -> int:
    """Makes the tables `steps` and `cells`; returns the number of steps."""
    connection = analysis.connection
    parameters = {"run": analysis.run, "lowest_first": lowest_first}
    connection.execute(read_sql("threshold_occurrences"))
    one_in = max(1, analysis.n_images // _IMAGES_FOR_STEPS)
    connection.execute(read_sql("threshold_steps"), {**parameters, "one_in": one_in})
    goodness = connection.execute("SELECT goodness FROM steps ORDER BY step").fetchnumpy()["goodness"]

    # A join would sort all occurrences.
    def step_of(scores: pa.ChunkedArray) -> pa.Array:
        return pa.array(np.maximum(np.searchsorted(goodness, scores.to_numpy(), side="right") - 1, 0), pa.int32())

    connection.create_function("step_of", step_of, ["FLOAT"], "INTEGER", type="arrow")
    try:
        connection.execute(read_sql("threshold_cells"), parameters)
    finally:
        connection.remove_function("step_of")
    return len(goodness)


def _fit(connection: Connection, halves: Sequence[int], target: float, n_steps: int) -> _Fit:
    """Learns from some halves of the images; `n_steps` is the step that no score reaches."""
    connection.execute(read_sql("threshold_pooled"), {"halves": list(halves)})
    (step,) = connection.execute(
        "SELECT min(step) FROM pooled WHERE precision >= $target", {"target": target}
    ).fetchone()
    common_step = n_steps if step is None else int(step)
    (row,) = query_rows(connection, "threshold_strength", {"halves": list(halves), "strengths": _STRENGTHS})
    strength = float(row["strength"] or _STRENGTHS[-1])
    learned = {"halves": list(halves), "target": target, "strength": strength}
    connection.execute(read_sql("threshold_names"), {**learned, "common_step": common_step, "n_steps": n_steps})
    return _Fit(common_step, strength)


def _cross_fit(connection: Connection, target: float, n_steps: int) -> dict[str, Counts]:
    """What thresholds do on images that they were not learned from, with thresholds of each half in turn."""
    totals = dict.fromkeys(("n_truth", *(f"n_{what}_{way}" for what in ("listed", "hits") for way in _WAYS)), 0)
    for half in _BOTH_HALVES:
        fit = _fit(connection, (1 - half,), target, n_steps)
        (row,) = query_rows(connection, "threshold_judged", {"half": half, "common_step": fit.common_step})
        totals = {name: total + int(row[name] or 0) for name, total in totals.items()}
    return {
        way: Counts(n_truth=totals["n_truth"], n_listed=totals[f"n_listed_{way}"], n_hits=totals[f"n_hits_{way}"])
        for way in _WAYS
    }


def _scores(connection: Connection, lowest_first: bool) -> dict[int, float]:
    """The score of each step, in its shortest notation, and of the one beyond that no score reaches."""
    sign = -1 if lowest_first else 1
    goodness = connection.execute("SELECT goodness FROM steps ORDER BY step").fetchnumpy()["goodness"]
    return dict(enumerate([*(float(str(sign * score)) for score in goodness), sign * math.inf]))


def _named(row: Mapping[str, Any], scores: Mapping[int, float], fit: _Fit, n_steps: int) -> NameThreshold:
    if row["step"] == n_steps:
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
