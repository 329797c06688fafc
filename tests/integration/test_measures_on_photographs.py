"""Measures of labelled photographs against plain, slow computation image by image: numpy, no SQL, and of the analysis
nothing but the names that a vocabulary gives.

Two runs: the demo model's, whose labels of photographs are mostly wrong, and one made of the truth with known kinds of
faults, so that measures are neither 0 nor 1.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import inflect
import numpy as np
import pyarrow.parquet as pq
import pytest

from model.folder import DEMO_MODEL
from pipeline.analysis.embeddings import find_embedder
from pipeline.analysis.recall import MeaningMatches, RunAnalysis, analyse_run, calibration_error, compare_meanings
from pipeline.catalog.views import open_store
from pipeline.estimate import Estimate
from pipeline.naming.nouns import nouns_of
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.store import Store
from tests.fixtures.labelling import label_with
from tests.fixtures.stored.tables import commit_judged, run_record
from tests.unit.pipeline.analysis import oracle

# The same oracle judges made-up runs in the unit tests; this adds real photographs and their words.
pytestmark = pytest.mark.long
KS = [1, 5, 10, 200]
TOLERANCE = 1e-6
FAULTY = "faulty-run"
WITHOUT_PERSON = replace(
    read_vocabulary(None), title="mine", deny=frozenset({"person", "man"}), aliases={"sofa": "couch", "bike": "bicycle"}
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A run's analysis, and what it is an analysis of, read from the store's files."""

    meanings: MeaningMatches
    images: list[dict[str, Any]]
    """Of each labelled image shard, key, truth, labels in the order of their ranks, and their scores."""
    vocabulary: Vocabulary

    @property
    def analysis(self) -> RunAnalysis:
        return self.meanings.analysis

    @property
    def with_truth(self) -> list[dict[str, Any]]:
        """Images with a truth, and under `names` and `listed` the names of truth and labels."""
        named = [
            {
                **image,
                "names": set(oracle.named(image["truth"] or [], self.vocabulary.name_of)),
                "listed": oracle.named(image["labels"], self.vocabulary.name_of),
            }
            for image in self.images
        ]
        return [image for image in named if image["names"]]

    def best_score(self, image: Mapping[str, Any], name: str) -> float:
        pairs = zip(image["labels"], image["scores"], strict=True)
        return max(score for label, score in pairs if self.vocabulary.name_of(label) == name)


@pytest.fixture(scope="module")
def runs(coco_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A store with both runs, and the name of the demo model's."""
    store = Store(str(tmp_path_factory.mktemp("photographs") / "store"))
    outcome = label_with(Path(DEMO_MODEL), coco_mini, store.url, model=DEMO_MODEL, top_k=10, batch_size=16)
    run = outcome.record.run
    store.create_run(run_record(FAULTY))
    commit_judged(store, FAULTY, faulty(stored_rows(store, "images", run)))
    return store, run


@pytest.fixture(scope="module", params=["demo-labels", "demo-captions", "faulty-labels", "faulty-captions"])
def judged(request: pytest.FixtureRequest, runs: tuple[Store, str]) -> Judged:
    """One run against one truth."""
    store, demo_run = runs
    source, truth = request.param.split("-")
    run, vocabulary = (demo_run, read_vocabulary(None)) if source == "demo" else (FAULTY, WITHOUT_PERSON)
    analysis = analyse_run(open_store(store.url, vocabulary), run, truth)
    meanings = compare_meanings(analysis, store, find_embedder(None), 200)
    assert meanings.note is None
    return Judged(meanings, stored_images(store, run, truth), vocabulary)


@pytest.fixture(scope="module")
def kept_vectors() -> dict[str, np.ndarray]:
    """Those of all runs and truths: each name is embedded once."""
    return {}


@pytest.fixture(scope="module")
def vectors(judged: Judged, kept_vectors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Embeddings of the names, made one at a time."""
    names = {name for image in judged.with_truth for name in [*image["names"], *image["listed"]]}
    kept_vectors.update(oracle.embed_alone(names - kept_vectors.keys()))
    return kept_vectors


def faulty(images: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The photographs with labels made of their truth: some missing, some wrong, spelled in many ways, of equal scores.

    Some images lose their labels, their truth or their caption.
    """
    rng = random.Random(0)
    all_names = sorted({name for image in images for name in image["truth"]})
    shards: dict[str, list[dict[str, Any]]] = {}
    for place, image in enumerate(images):
        chosen = [name for name in image["truth"] if rng.random() < 0.7] + rng.sample(all_names, rng.randrange(5))
        chosen += [noun for noun in nouns_of(image["caption"]) if rng.random() < 0.4]
        chosen += rng.choices(chosen, k=3) if chosen else []
        rng.shuffle(chosen)
        labels = list(dict.fromkeys(respelled(name, rng) for name in chosen)) if place % 10 else []
        # Tenths, so that scores tie and lie on the edges of the calibration's bins.
        scores = sorted((rng.randrange(11) / 10 for _ in labels), reverse=True)
        truth = None if place % 13 == 1 else ["Persons"] if place % 13 == 2 else [*image["truth"], "bikes", "Bicycle"]
        given = {"truth": truth, "caption": None if place % 17 == 3 else image["caption"]}
        shards.setdefault(image["shard"], []).append({**given, "labels": list(zip(labels, scores, strict=True))})
    return shards


def respelled(name: str, rng: random.Random) -> str:
    spellings: list[Callable[[str], str]] = [
        str,
        str.title,
        str.upper,
        inflect.engine().plural,
        lambda text: text.replace(" ", "-"),
        lambda text: text.replace(" ", ""),
    ]
    return rng.choice(spellings)(name)


def stored_rows(store: Store, table: str, run: str) -> list[dict[str, Any]]:
    files = sorted(Path(store.url, table, f"run={run}").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return sorted(rows, key=lambda row: (row["shard"], row["index"], row.get("rank")))


def stored_images(store: Store, run: str, truth: str) -> list[dict[str, Any]]:
    """Labelled images as the oracle takes them."""
    labels: dict[int, list[dict[str, Any]]] = {}
    for label in stored_rows(store, "labels", run):
        labels.setdefault(label["image_id"], []).append(label)
    return [
        {
            "shard": image["shard"],
            "key": image["key"],
            "truth": image["truth"] if truth == "labels" else nouns_of(image["caption"] or ""),
            "labels": [label["label"] for label in labels.get(image["image_id"], [])],
            "scores": [label["score"] for label in labels.get(image["image_id"], [])],
        }
        for image in stored_rows(store, "images", run)
        if image["status"] == "labelled"
    ]


def widest_gap(cosines: Iterable[float], about: float) -> float:
    """A threshold that no cosine is close to: names embedded in a batch get cosines that are up to 1e-6 others."""
    near = np.sort([about, about + 0.03, *(cosine for cosine in cosines if about < cosine < about + 0.03)])
    place = np.diff(near).argmax()
    return float(near[place : place + 2].mean())


def values(measures: Mapping[str, Estimate]) -> dict[str, float]:
    return {name: estimate.value for name, estimate in measures.items()}


def test_the_trial_holds_what_is_hard(runs: tuple[Store, str]) -> None:
    images = stored_images(runs[0], FAULTY, "labels")
    named = [[WITHOUT_PERSON.name_of(label) for label in image["labels"]] for image in images]
    assert any(len(set(names)) < len(names) for names in named), "two spellings of a name in one image"
    assert any(None in names for names in named), "a label that is denied"
    assert any(len(set(image["scores"])) < len(image["scores"]) for image in images), "scores that tie"
    assert any(not image["labels"] for image in images), "an image without labels"
    assert any(image["truth"] is None for image in images), "an image without truth"
    assert any(image["truth"] == ["Persons"] for image in images), "an image whose truth is denied"


def test_the_demo_model_finds_little_and_the_faulty_run_neither_all_nor_nothing(judged: Judged) -> None:
    (at_10,) = judged.analysis.recall([10])
    low, high = (0.2, 0.8) if judged.analysis.run == FAULTY else (0.0, 0.2)
    assert low < at_10.measures["f1_micro"].value < high


def test_exact_measures_are_those_of_plain_computation(judged: Judged) -> None:
    measured = {at_k.k: values(at_k.measures) for at_k in judged.analysis.recall(KS)}
    for k in KS:
        expected = oracle.measures_at(judged.images, k, judged.vocabulary.name_of)
        assert measured[k] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("about", [0.5, 0.75])
def test_semantic_measures_are_those_of_plain_computation(
    judged: Judged, vectors: Mapping[str, np.ndarray], about: float
) -> None:
    pairs = {(true, name) for image in judged.with_truth for true in image["names"] for name in image["listed"]}
    cosines = {(true, name): float(vectors[true] @ vectors[name]) for true, name in pairs}
    min_cosine = widest_gap(cosines.values(), about)
    assert any(cosine < min_cosine for cosine in cosines.values())
    assert any(cosine > min_cosine for (true, name), cosine in cosines.items() if true != name)
    measured = {at_k.k: values(at_k.measures) for at_k in judged.meanings.recall(KS, min_cosine)}
    for k in KS:
        expected = oracle.measures_at(
            judged.images, k, judged.vocabulary.name_of, lambda true, name: cosines[true, name] >= min_cosine
        )
        assert measured[k] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("k", KS)
def test_the_papers_measures_are_those_of_plain_computation(
    judged: Judged, vectors: Mapping[str, np.ndarray], k: int
) -> None:
    expected = oracle.paper_measures_at(judged.images, k, judged.vocabulary.name_of, vectors)
    assert values(judged.meanings.paper_measures(k)) == pytest.approx(expected, abs=TOLERANCE)


def test_every_name_is_counted_and_ordered_as_by_plain_computation(judged: Judged) -> None:
    k, images = 5, judged.with_truth
    measured = {label.name: label for label in judged.analysis.labels(k)}
    names = {name for image in images for name in [*image["names"], *image["listed"][:k]]}
    assert measured.keys() == names
    precisions = []
    for name in names:
        is_true = [name in image["names"] for image in images]
        is_listed = [name in image["listed"][:k] for image in images]
        n_hits = sum(true and listed for true, listed in zip(is_true, is_listed, strict=True))
        label = measured[name]
        assert (label.n_truth, label.n_listed, label.n_hits) == (sum(is_true), sum(is_listed), n_hits)
        if any(is_true):
            scored = [
                (judged.best_score(image, name), true)
                for image, true in zip(images, is_true, strict=True)
                if name in image["listed"]
            ]
            precisions.append(oracle.average_precision(scored, sum(is_true)))
            assert label.average_precision == pytest.approx(precisions[-1], abs=TOLERANCE)
        else:
            assert label.average_precision is None
    assert judged.analysis.mean_average_precision().value == pytest.approx(float(np.mean(precisions)), abs=TOLERANCE)


def test_what_is_listed_instead_is_that_of_plain_computation(judged: Judged) -> None:
    k = 5
    instead: dict[str, Counter[str]] = {}
    for image in judged.with_truth:
        first = image["listed"][:k]
        for missed in image["names"] - set(first):
            instead.setdefault(missed, Counter()).update(name for name in first if name not in image["names"])
    for label in judged.analysis.labels(k):
        most = sorted(instead.get(label.name, Counter()).items(), key=lambda pair: (-pair[1], pair[0]))
        assert label.confusions == most[:3]


@pytest.mark.parametrize("k", KS)
def test_the_worst_images_are_those_of_plain_computation(judged: Judged, k: int) -> None:
    expected = []
    for image in judged.with_truth:
        first, names = image["listed"][:k], image["names"]
        n_hits = len(names & set(first))
        f1 = 2 * n_hits / (len(names) + len(first))
        missed = sorted(names - set(first))
        expected.append((f1, -len(missed), image["shard"], image["key"], len(names), n_hits, missed, first))
    order = ("f1", "shard", "key", "n_truth", "n_hits", "missed", "listed")
    measured = [tuple(row[name] for name in order) for row in judged.analysis.worst_images(k, 50)]
    assert measured == [(f1, *rest) for f1, _, *rest in sorted(expected, key=lambda row: row[:4])[:50]]


def test_calibration_is_that_of_plain_computation(judged: Judged) -> None:
    pairs = [
        (np.float32(judged.best_score(image, name)), name in image["names"])
        for image in judged.with_truth
        for name in image["listed"]
    ]
    scores, hits = np.array([score for score, _ in pairs]), np.array([is_hit for _, is_hit in pairs])
    # A score of 1 is in the last tenth.
    tenths = np.minimum(np.searchsorted((np.arange(11) / 10).astype(np.float32), scores, side="right") - 1, 9)
    expected = [
        (tenth / 10, (tenths == tenth).sum(), scores[tenths == tenth].mean(dtype=float), hits[tenths == tenth].mean())
        for tenth in sorted(set(tenths))
    ]
    rows = judged.analysis.reliability()
    measured = [(row["score_from"], row["n_listed"], row["mean_score"], row["hit_share"]) for row in rows]
    np.testing.assert_allclose(measured, expected, rtol=0, atol=TOLERANCE)
    error = sum(n_listed * abs(score - share) for _, n_listed, score, share in expected) / len(pairs)
    assert calibration_error(rows) == pytest.approx(error, abs=TOLERANCE)


def test_coverage_is_that_of_plain_computation(judged: Judged) -> None:
    images = judged.with_truth
    listed = {name for image in images for name in image["listed"]}
    truths = [name for image in images for name in image["names"]]
    labels = [judged.vocabulary.name_of(label) for image in images for label in image["labels"]]
    coverage = judged.analysis.coverage()
    assert (coverage.n_true_names, coverage.n_true_names_listed) == (len(set(truths)), len(set(truths) & listed))
    assert (coverage.n_truths, coverage.n_truths_listed) == (len(truths), sum(name in listed for name in truths))
    assert (coverage.n_names_listed, coverage.n_labels) == (len(listed), len(labels))
    assert coverage.n_labels_denied == labels.count(None)
