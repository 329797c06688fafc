"""Recall of a run: how much of what is true of its images is among their first labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from model.choices import Ranking
from pipeline.analysis.embeddings import embed_names
from pipeline.analysis.measures import ImageCounts, estimate, estimate_mean
from pipeline.analysis.truth import GivenTruth, NamedTruth, TruthKind, name_labels, no_truth
from pipeline.catalog.connection import Connection, add_table, query_rows, read_sql, run_record
from pipeline.catalog.label_choice import label_kinds, shown_ranking
from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate
from pipeline.naming.vocabulary import Vocabulary
from pipeline.store.store import Store

_N_CONFUSIONS = 3
_NORMAL_INTERVAL = 1.96
_COUNTS = ("n_truth", "n_found", "n_listed", "n_hits", "n_images")


@dataclass(frozen=True, slots=True)
class RunAnalysis:
    """A run whose labels and truth have names; `analyse_run` makes it.

    It asks tables of its connection, which the next analysis on the same connection takes over.
    """

    named: NamedTruth
    ranking: Ranking
    """What the run's labels are ranked by."""

    @property
    def run(self) -> str:
        return self.named.runs[0]

    @property
    def truth(self) -> TruthKind:
        return self.named.truth

    @property
    def n_images(self) -> int:
        """Labelled images with a truth; all measures are over these."""
        return self.named.n_images

    @property
    def n_without_noun(self) -> int:
        """Labelled images with captions that have no noun; they are not measured."""
        return self.named.n_without_noun

    @property
    def connection(self) -> Connection:
        return self.named.connection

    def recall(self, ks: Sequence[int], *, by_shard: bool = False) -> list[RecallAtK]:
        """All measures at each k, of the run or of each shard. Equal names are a hit."""
        self.connection.execute(read_sql("exact_hits"))
        return self._count_hits(ks, by_shard=by_shard)

    def _count_hits(self, ks: Sequence[int], *, by_shard: bool, min_cosine: float | None = None) -> list[RecallAtK]:
        """Measures from what the macro `hits` counts as a hit, which has just been made."""
        asked = {"run": self.run, "ks": sorted(set(ks)), "by_shard": by_shard, "min_cosine": min_cosine}
        rows = query_rows(self.connection, "image_counts", asked)
        return [
            RecallAtK(shard, k, counts.n_images, estimate(counts))
            for (shard, k), kinds in groupby(rows, key=lambda row: (row["shard"], row["k"]))
            for counts in [ImageCounts.of(tuple(kind[name] for name in _COUNTS) for kind in kinds)]
        ]

    def mean_average_precision(self) -> Estimate:
        """Mean over the names that are true of any image (0 for one that is never listed), of labels of any rank.

        The interval is over names: what other names, each with images of its own, would have given. Most names are true
        of few images, so that intervals over images leave out much of the doubt: in simulations of 80 and 500 images,
        names even and by Zipf's law, they held the truth in 51 to 96 of 100 cases, these in 94 to 100.
        """
        return estimate_mean(list(self._average_precisions().values()))

    def coverage(self) -> Coverage:
        """What the labels name, at any rank and on any of the images."""
        (row,) = query_rows(self.connection, "coverage", {"run": self.run})
        return Coverage(**row)

    def labels(self, k: int) -> list[LabelQuality]:
        """Every name that is true of an image or listed, the most frequent truths first."""
        confusions = query_rows(self.connection, "confusions", {"run": self.run, "k": k, "n": _N_CONFUSIONS})
        instead = {
            name: [(row["instead"], row["n_images"]) for row in rows]
            for name, rows in groupby(confusions, key=lambda row: row["name"])
        }
        precisions = self._average_precisions()
        return [
            LabelQuality(**row, average_precision=precisions.get(row["name"]), confusions=instead.get(row["name"], []))
            for row in self.name_counts(k)
        ]

    def name_counts(self, k: int) -> list[dict[str, Any]]:
        """Counts of every name that is true of an image or listed among the first k.

        Returns: rows of name, n_truth, n_listed, n_hits.
        """
        return query_rows(self.connection, "name_counts", {"run": self.run, "k": k})

    def worst_images(self, k: int, n: int) -> list[dict[str, Any]]:
        """The n images with the lowest F1 at k: shard, key, n_truth, n_hits, f1, missed names, listed names."""
        return query_rows(self.connection, "worst_images", {"run": self.run, "k": k, "n": n})

    def reliability(self) -> list[dict[str, Any]]:
        """For each tenth of the scores: score_from, n_listed, mean_score, hit_share.

        Raises TagstreamError for a ranking whose scores are no probabilities.
        """
        if not self.ranking.is_probability:
            raise TagstreamError(
                f"scores of the ranking {self.ranking.name} are no probabilities, and have no reliability"
            )
        return query_rows(self.connection, "reliability", {"run": self.run})

    def _average_precisions(self) -> dict[str, float]:
        """The average precision of every name that is true of an image, the most frequent name first."""
        parameters = {"run": self.run, "lower_is_better": self.ranking.lowest_first}
        rows = query_rows(self.connection, "average_precisions", parameters)
        return {row["name"]: row["average_precision"] for row in rows}


@dataclass(frozen=True, slots=True)
class TermMatches:
    """A run's names beside wider and narrower terms of the vocabulary; `compare_terms` makes it."""

    analysis: RunAnalysis

    def recall(self, ks: Sequence[int], *, by_shard: bool = False) -> list[RecallAtK]:
        """As `RunAnalysis.recall`. A wider or narrower term of a true name is a hit, too."""
        self.analysis.connection.execute(read_sql("wider_hits"))
        return self.analysis._count_hits(ks, by_shard=by_shard)


@dataclass(frozen=True, slots=True)
class MeaningMatches:
    """A run's names beside names of similar meaning, for k up to a limit; `compare_meanings` makes it."""

    analysis: RunAnalysis
    note: str | None
    """Why new embeddings could not be kept in the store; None where they were."""

    def recall(self, ks: Sequence[int], min_cosine: float, *, by_shard: bool = False) -> list[RecallAtK]:
        """As `RunAnalysis.recall`. A name whose embedding has this cosine or more to a true one's is a hit, too."""
        self.analysis.connection.execute(read_sql("semantic_hits"))
        return self.analysis._count_hits(ks, by_shard=by_shard, min_cosine=min_cosine)

    def paper_measures(self, k: int) -> dict[str, Estimate]:
        """The paper's recall, precision and F1 at k, by name; intervals from the normal distribution.

        Of each image, recall is the mean over its true names of the cosine of the most similar listed name, precision
        the other way round, F1 their harmonic mean; all are averaged over images.
        """
        measures = {}
        for row in query_rows(self.analysis.connection, "paper", {"run": self.analysis.run, "k": k}):
            margin = _NORMAL_INTERVAL * row["deviation"] / row["n_images"] ** 0.5
            measures[row["measure"]] = Estimate(row["value"], row["value"] - margin, row["value"] + margin)
        return measures


@dataclass(frozen=True, slots=True)
class RecallAtK:
    """Measures (pipeline.analysis.measures) at one k."""

    shard: str | None
    k: int
    n_images: int
    measures: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What labels name of what is true of images."""

    n_true_names: int
    """Different names that are true of any image."""
    n_true_names_listed: int
    """Different true names that are listed on any image, be it a wrong one."""
    n_truths: int
    """True names of all images together."""
    n_truths_listed: int
    """True names of all images together that are listed on any image: no more can be hits."""
    n_names_listed: int
    """Different names that are listed, true or not."""
    n_labels: int
    n_labels_denied: int
    """Labels that the vocabulary denies, which have no name."""

    @property
    def shares(self) -> dict[str, float]:
        """Shares, 0 to 1: true names and truths that are ever listed, and labels that are denied."""
        return {
            "true_names_listed": self.n_true_names_listed / self.n_true_names,
            "truths_listed": self.n_truths_listed / self.n_truths,
            "labels_denied": self.n_labels_denied / max(1, self.n_labels),
        }


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """How well one name is found among the first k."""

    name: str
    n_truth: int
    """Images of which the name is true: its support."""
    n_listed: int
    n_hits: int
    average_precision: float | None
    """The name's average precision over images in the order of their scores, 0 to 1; None without support."""
    confusions: list[tuple[str, int]]
    """What images that lack the name list instead, each with its number of images."""

    @property
    def recall(self) -> float | None:
        return self.n_hits / self.n_truth if self.n_truth else None

    @property
    def precision(self) -> float | None:
        return self.n_hits / self.n_listed if self.n_listed else None


def analyse_run(connection: Connection, run: str, truth: GivenTruth) -> RunAnalysis:
    """Names the labels and the truth of a run, in the vocabulary that the store was opened with.

    Raises TagstreamError where there is no such run, or no truth.
    """
    record = run_record(connection, run)
    ranking = shown_ranking(connection, run, record["labelling"])
    named = name_labels(connection, [run], truth)
    if not named.n_images:
        raise no_truth(run, truth, label_kinds(connection))
    return RunAnalysis(named, ranking)


def compare_meanings(analysis: RunAnalysis, store: Store, embedder: Path, k: int) -> MeaningMatches:
    """Embeds the names that are true, or among the first k of an image, and compares them within each image.

    Args:
        embedder: the folder of `pipeline.analysis.embeddings.find_embedder`.
        k: the largest that will be asked for.
    """
    connection = analysis.connection
    connection.execute(read_sql("compared_names"), {"run": analysis.run, "k": k})
    table, note = embed_names(store, embedder, [row["name"] for row in query_rows(connection, "names_to_embed", {})])
    add_table(connection, "embeddings", table)
    connection.execute(read_sql("similarities"))
    return MeaningMatches(analysis, note)


def compare_terms(analysis: RunAnalysis, vocabulary: Vocabulary) -> TermMatches:
    """Relates names to wider and narrower terms. Raises TagstreamError where the vocabulary has no wider terms."""
    if not vocabulary.wider:
        raise TagstreamError(
            f"the vocabulary {vocabulary.version} has no wider terms; --match wider needs a --vocabulary file with the "
            'table [wider]: puppy = "dog"'
        )
    # A name or term that the vocabulary denies is null here, and equal to no name.
    names, terms = (
        [vocabulary.name_of(word) for word in words] for words in zip(*vocabulary.wider.items(), strict=True)
    )
    analysis.connection.execute(read_sql("related"), {"names": names, "terms": terms})
    return TermMatches(analysis)


def calibration_error(reliability: Sequence[Mapping[str, Any]]) -> float:
    """Expected calibration error: mean distance of a label's score from the share of hits in its tenth."""
    n_listed = sum(row["n_listed"] for row in reliability)
    return sum(row["n_listed"] * abs(row["mean_score"] - row["hit_share"]) for row in reliability) / max(1, n_listed)
