"""Recall of a run: how much of what is true of its images is among their first labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.analysis.embeddings import embed_names
from pipeline.analysis.measures import Estimate, ImageCounts, estimate
from pipeline.analysis.truth import TruthKind, name_labels, no_truth
from pipeline.catalog import Connection, add_table, query_rows, read_sql
from pipeline.errors import TagstreamError
from pipeline.store import Store

_N_CONFUSIONS = 3
_NORMAL_INTERVAL = 1.96
_COUNTS = ("n_truth", "n_found", "n_listed", "n_hits", "n_images")
# As model.ranking has it, which would import torch: reading a store takes no seconds of that.
LOWEST_FIRST = frozenset({"ppl", "sim"})
_PROBABILITIES = frozenset({"prob", "none"})


@dataclass(frozen=True, slots=True)
class RunAnalysis:
    """A run whose labels and truth have names; `analyse_run` makes it."""

    run: str
    truth: str
    n_images: int
    """With a truth; all measures are over these."""
    ranking: str
    """Of the run's scores."""
    connection: Connection

    def recall(self, ks: Sequence[int], *, by_shard: bool = False, min_cosine: float | None = None) -> list[RecallAtK]:
        """All measures at each k, of the run or of each shard.

        Args:
            min_cosine: of names that count as a hit; None takes equal names alone. Needs `compare_meanings`.
        """
        parameters = {"run": self.run, "ks": sorted(set(ks)), "by_shard": by_shard}
        self.connection.execute(read_sql("exact_hits" if min_cosine is None else "semantic_hits"))
        rows = query_rows(self.connection, "image_counts", {**parameters, "min_cosine": min_cosine})
        return [
            RecallAtK(shard, k, counts.n_images, estimate(counts))
            for (shard, k), kinds in groupby(rows, key=lambda row: (row["shard"], row["k"]))
            for counts in [ImageCounts.of(tuple(kind[name] for name in _COUNTS) for kind in kinds)]
        ]

    def paper_measures(self, k: int) -> dict[str, Estimate]:
        """The paper's recall, precision and F1 at k, by name; intervals from the normal distribution.

        Needs `compare_meanings`. Of each image, recall is the mean over its true names of the cosine of the most
        similar listed name, precision the other way round, F1 their harmonic mean; all are averaged over images.
        """
        measures = {}
        for row in query_rows(self.connection, "paper", {"run": self.run, "k": k}):
            margin = _NORMAL_INTERVAL * row["deviation"] / row["n_images"] ** 0.5
            measures[row["measure"]] = Estimate(row["value"], row["value"] - margin, row["value"] + margin)
        return measures

    def labels(self, k: int) -> list[LabelQuality]:
        """Every name that is true of an image or listed, the most frequent truths first."""
        parameters = {"run": self.run, "k": k}
        lower_is_better = self.ranking in LOWEST_FIRST
        found = query_rows(self.connection, "label_counts", {**parameters, "lower_is_better": lower_is_better})
        confusions = query_rows(self.connection, "confusions", {**parameters, "n": _N_CONFUSIONS})
        instead = {
            name: [(row["instead"], row["n_images"]) for row in rows]
            for name, rows in groupby(confusions, key=lambda row: row["name"])
        }
        return [LabelQuality(**row, confusions=instead.get(row["name"], [])) for row in found]

    def worst_images(self, k: int, n: int) -> list[dict[str, Any]]:
        """The n images with the lowest F1 at k: shard, key, n_truth, n_hits, f1, missed names, listed names."""
        return query_rows(self.connection, "worst_images", {"run": self.run, "k": k, "n": n})

    def reliability(self) -> list[dict[str, Any]]:
        """For each tenth of the scores: score_from, n_listed, mean_score, hit_share.

        Raises TagstreamError for a ranking whose scores are no probabilities.
        """
        if self.ranking not in _PROBABILITIES:
            raise TagstreamError(f"scores of the ranking {self.ranking} are no probabilities, and have no reliability")
        return query_rows(self.connection, "reliability", {"run": self.run})


@dataclass(frozen=True, slots=True)
class RecallAtK:
    """Measures (pipeline.analysis.measures) at one k."""

    shard: str | None
    k: int
    n_images: int
    measures: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """How well one name is found among the first k."""

    name: str
    n_truth: int
    """Images of which it is true: its support."""
    n_listed: int
    n_hits: int
    average_precision: float | None
    """Over images in the order of their scores; None without support."""
    confusions: list[tuple[str, int]]
    """What images that lack it list instead, with the number of images."""

    @property
    def recall(self) -> float | None:
        return self.n_hits / self.n_truth if self.n_truth else None

    @property
    def precision(self) -> float | None:
        return self.n_hits / self.n_listed if self.n_listed else None


def analyse_run(connection: Connection, run: str | None, truth: TruthKind) -> RunAnalysis:
    """Names the labels and the truth of a run, in the vocabulary that the store was opened with.

    Args:
        run: None takes the store's only run.

    Raises TagstreamError where there is no such run, or no truth.
    """
    record = find_run(connection, run)
    n_images = name_labels(connection, [record["run"]], truth)
    if not n_images:
        raise no_truth(record["run"], truth)
    return RunAnalysis(record["run"], truth, n_images, record["labelling"]["ranking"], connection)


def compare_meanings(analysis: RunAnalysis, store: Store, embedder: Path) -> str | None:
    """Embeds the names of a run and makes the table `similarities`, for `min_cosine` and `paper_measures`.

    Returns: why new embeddings could not be kept in the store, if so.
    """
    names = analysis.connection.execute("SELECT DISTINCT name FROM names").fetchall()
    table, note = embed_names(store, embedder, [name for (name,) in names])
    add_table(analysis.connection, "embeddings", table)
    analysis.connection.execute(read_sql("similarities"), {"run": analysis.run})
    return note


def calibration_error(reliability: Sequence[Mapping[str, Any]]) -> float:
    """Expected calibration error: mean distance of a label's score from the share of hits in its tenth."""
    n_listed = sum(row["n_listed"] for row in reliability)
    return sum(row["n_listed"] * abs(row["mean_score"] - row["hit_share"]) for row in reliability) / max(1, n_listed)


def mean_average_precision(labels: Sequence[LabelQuality]) -> float:
    """Mean over the names that are true of any image (0 where a name was never listed)."""
    precisions = [label.average_precision for label in labels if label.average_precision is not None]
    return sum(precisions) / len(precisions)


def find_run(connection: Connection, run: str | None) -> dict[str, Any]:
    """The record of a run, by default of the only one. Raises TagstreamError where there is none, or a choice."""
    records = query_rows(connection, "records", {"run": run})
    if len(records) == 1:
        return records[0]
    if not records:
        raise TagstreamError(f"there is no run {run} in the store")
    names = ", ".join(record["run"] for record in records)
    raise TagstreamError(f"the store holds {len(records)} runs ({names}); choose one with --run")
