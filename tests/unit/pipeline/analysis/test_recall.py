"""Recall of a run against plain computation, and cases whose answer is known."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import numpy as np
import pytest

from model.choices import RANKINGS
from pipeline.analysis.recall import Coverage, LabelQuality, RunAnalysis, analyse_run, calibration_error, compare_terms
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.store import Store
from schemas import REJECTED
from tests.fixtures.stored.tables import commit_judged, run_record
from tests.unit.pipeline.analysis import oracle
from tests.unit.pipeline.analysis.conftest import RUN, AnalyseFunction

WORDS = [
    "dog",
    "dogs",
    "Dog",
    "cat",
    "hot dog",
    "hotdog",
    "hot-dog",
    "bus",
    "buses",
    "tree",
    "tie",
    "ski",
    "skis",
    "x'y",
]
KS = [1, 2, 3, 5, 50]


def random_images(seed: int, n_images: int) -> list[dict[str, Any]]:
    """Images with few words, so that names fold together and scores tie."""
    rng = random.Random(seed)
    images = []
    for _ in range(n_images):
        labels = rng.sample(WORDS, rng.randrange(len(WORDS)))
        scores = sorted((rng.choice([0.1, 0.2, 0.3, 0.5]) for _ in labels), reverse=True)
        truth = rng.choice([None, [], *[rng.sample(WORDS, rng.randrange(1, 6)) for _ in range(4)]])
        images.append({"truth": truth, "labels": list(zip(labels, scores, strict=True))})
    return images


def texts(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**image, "labels": [label for label, _ in image["labels"]]} for image in images]


def values_at(analysis: RunAnalysis, k: int) -> dict[str, float]:
    (at_k,) = analysis.recall([k])
    return {name: estimate.value for name, estimate in at_k.measures.items()}


def by_name(analysis: RunAnalysis, k: int = 10) -> dict[str, LabelQuality]:
    return {label.name: label for label in analysis.labels(k)}


class TestAgainstPlainComputation:
    """SQL and counting by kinds of images against one image after another."""

    @pytest.mark.parametrize("seed", range(3))
    def test_measures_at_every_k_are_the_same(self, analyse: AnalyseFunction, seed: int) -> None:
        images = random_images(seed, 60)
        analysis = analyse(images)
        name_of = read_vocabulary(None).name_of
        for at_k in analysis.recall(KS):
            measured = {name: estimate.value for name, estimate in at_k.measures.items()}
            assert measured == pytest.approx(oracle.measures_at(texts(images), at_k.k, name_of), abs=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    def test_average_precision_of_every_name_is_the_same(self, analyse: AnalyseFunction, seed: int) -> None:
        images = random_images(seed, 60)
        name_of = read_vocabulary(None).name_of
        with_truth = [image for image in images if image["truth"]]
        for label in analyse(images).labels(5):
            truths = [set(oracle.named(image["truth"], name_of)) for image in with_truth]
            scored = [
                (max(scores), label.name in truth)
                for image, truth in zip(with_truth, truths, strict=True)
                if (scores := [score for text, score in image["labels"] if name_of(text) == label.name])
            ]
            n_truth = sum(label.name in truth for truth in truths)
            assert label.n_truth == n_truth
            if n_truth:
                # Scores are stored as float32.
                expected = oracle.average_precision(scored, n_truth)
                assert label.average_precision == pytest.approx(expected, abs=1e-6)

    def test_shards_are_measured_like_runs_of_their_own(self, analyse: AnalyseFunction) -> None:
        shards = {"a": random_images(1, 20), "b": random_images(2, 30)}
        name_of = read_vocabulary(None).name_of
        measured = {at_k.shard: at_k for at_k in analyse(shards).recall([3], by_shard=True)}
        assert measured.keys() == shards.keys()
        for shard, images in shards.items():
            values = {name: estimate.value for name, estimate in measured[shard].measures.items()}
            assert values == pytest.approx(oracle.measures_at(texts(images), 3, name_of), abs=1e-12)


class TestKnownAnswers:
    """Cases worked out by hand."""

    def test_two_of_three_truths_among_four_labels(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["dog", "cat", "tree"], "labels": ["dog", "car", "tree", "tie"]}])
        assert values_at(analysis, 4) == pytest.approx(
            {
                "recall_macro": 2 / 3,
                "precision_macro": 1 / 2,
                "f1_macro": 4 / 7,
                "recall_micro": 2 / 3,
                "precision_micro": 1 / 2,
                "f1_micro": 4 / 7,
                "hit": 1.0,
            }
        )

    def test_macro_is_over_images_and_micro_over_labels(self, analyse: AnalyseFunction) -> None:
        images = [{"truth": ["dog"], "labels": ["dog"]}, {"truth": ["cat", "tree", "tie"], "labels": ["car"]}]
        values = values_at(analyse(images), 1)
        assert (values["recall_macro"], values["recall_micro"]) == (0.5, 0.25)
        assert (values["precision_macro"], values["precision_micro"]) == (0.5, 0.5)

    def test_a_k_beyond_the_list_asks_for_the_list(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["dog"], "labels": ["cat", "dog"]}])
        assert values_at(analysis, 200) == values_at(analysis, 2)

    def test_an_image_without_labels_has_found_nothing(self, analyse: AnalyseFunction) -> None:
        values = values_at(analyse([{"truth": ["dog"], "labels": ["dog"]}, {"truth": ["cat"], "labels": []}]), 5)
        assert (values["recall_macro"], values["precision_macro"], values["hit"]) == (0.5, 0.5, 0.5)

    @pytest.mark.parametrize("truth", [None, []])
    def test_an_image_without_truth_does_not_count(self, analyse: AnalyseFunction, truth: list[str] | None) -> None:
        analysis = analyse([{"truth": ["dog"], "labels": ["dog"]}, {"truth": truth, "labels": ["cat"]}])
        assert analysis.n_images == 1
        assert values_at(analysis, 5)["precision_micro"] == 1.0
        assert by_name(analysis).keys() == {"dog"}

    def test_names_that_fold_together_take_one_place(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["cats", "Dog"], "labels": ["dog", "dogs", "DOG", "cat"]}])
        assert values_at(analysis, 2)["recall_macro"] == 1.0
        assert values_at(analysis, 4)["precision_macro"] == 1.0

    def test_a_denied_name_is_neither_truth_nor_label(self, analyse: AnalyseFunction) -> None:
        vocabulary = Vocabulary(title="v", fold_plurals=True, keep=frozenset(), deny=frozenset({"photo"}))
        images = [{"truth": ["photos", "dog"], "labels": ["photo", "dog"]}, {"truth": ["photo"], "labels": ["dog"]}]
        analysis = analyse(images, vocabulary=vocabulary)
        assert analysis.n_images == 1
        assert values_at(analysis, 1)["recall_macro"] == 1.0

    def test_an_image_whose_truth_is_denied_entirely_counts_nowhere(self, analyse: AnalyseFunction) -> None:
        vocabulary = Vocabulary(title="v", fold_plurals=True, keep=frozenset(), deny=frozenset({"photo"}))
        images = [{"truth": ["dog"], "labels": ["dog"]}, {"truth": ["Photos"], "labels": ["dog", "cat"]}]
        analysis = analyse(images, vocabulary=vocabulary)
        assert values_at(analysis, 5)["precision_micro"] == 1.0
        assert [(label.name, label.n_listed) for label in analysis.labels(5)] == [("dog", 1)]
        assert [image["key"] for image in analysis.worst_images(5, 10)] == ["0"]
        assert [row["n_listed"] for row in analysis.reliability()] == [1]
        assert analysis.coverage().n_labels == 1

    def test_two_spellings_in_one_truth_are_one_truth(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["hot dog", "hotdogs", "Hot-Dog", "cat"], "labels": ["hotdog"]}])
        assert values_at(analysis, 5)["recall_micro"] == 0.5
        assert [(label.name, label.n_truth) for label in analysis.labels(5)] == [("cat", 1), ("hot dog", 1)]

    @pytest.mark.parametrize(("ranking", "better", "worse"), [("prob", 0.5, 0.25), ("ppl", 0.25, 0.5)])
    def test_a_name_has_the_best_score_of_its_spellings(
        self, analyse: AnalyseFunction, ranking: str, better: float, worse: float
    ) -> None:
        between = (better + worse) / 2
        images = [
            {"truth": ["dog"], "labels": [("Dogs", better), ("dog", worse)]},
            {"truth": ["cat"], "labels": [("dog", between)]},
        ]
        assert by_name(analyse(images, ranking=ranking))["dog"].average_precision == 1.0

    def test_labels_of_equal_scores_keep_the_order_of_their_ranks(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["tree"], "labels": [("tree", 0.5), ("cat", 0.5), ("dog", 0.5)]}])
        assert values_at(analysis, 1)["hit"] == 1.0
        assert analysis.worst_images(3, 1)[0]["listed"] == ["tree", "cat", "dog"]

    def test_a_run_that_lists_nothing_has_found_nothing(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["dog", "cat"], "labels": []}])
        assert set(values_at(analysis, 5).values()) == {0.0}
        assert analysis.mean_average_precision().value == 0.0
        assert analysis.coverage() == Coverage(2, 0, 2, 0, 0, 0, 0)
        assert set(analysis.coverage().shares.values()) == {0.0}
        assert calibration_error(analysis.reliability()) == 0.0

    def test_captions_without_a_noun_are_counted(self, analyse: AnalyseFunction) -> None:
        captions = ["A dog sits.", "\u4e00\u53ea\u74e2\u866b", " ", None]
        analysis = analyse([{"caption": caption, "labels": ["dog"]} for caption in captions], truth="captions")
        assert (analysis.n_images, analysis.n_without_noun) == (1, 1)

    def test_nouns_of_captions_can_be_the_truth(self, analyse: AnalyseFunction) -> None:
        image = {"caption": "Two dogs on a bench\nA dog sits.", "truth": ["cat"], "labels": ["dog", "cat"]}
        analysis = analyse([image, {"caption": None, "labels": ["dog"]}], truth="captions")
        assert (analysis.n_images, values_at(analysis, 2)["recall_macro"]) == (1, 0.5)

    def test_equal_scores_stand_together(self, analyse: AnalyseFunction) -> None:
        images = [
            {"truth": ["dog"], "labels": [("dog", 0.5)]},
            {"truth": ["cat"], "labels": [("dog", 0.5)]},
            {"truth": ["dog"], "labels": [("dog", 0.25)]},
        ]
        # Precision 1/2 at the first threshold, 2/3 at the second.
        assert by_name(analyse(images))["dog"].average_precision == pytest.approx((1 / 2 + 2 / 3) / 2)

    def test_a_truth_that_is_never_listed_has_no_precision_and_pulls_the_mean_down(
        self, analyse: AnalyseFunction
    ) -> None:
        analysis = analyse([{"truth": ["dog", "cat"], "labels": ["dog"]}])
        found = {label.name: (label.recall, label.precision, label.average_precision) for label in analysis.labels(5)}
        assert found == {"dog": (1.0, 1.0, 1.0), "cat": (0.0, None, 0.0)}
        assert analysis.mean_average_precision().value == 0.5

    @pytest.mark.parametrize("ranking", RANKINGS)
    def test_scores_are_ordered_as_the_ranking_orders_them(self, analyse: AnalyseFunction, ranking: str) -> None:
        better, worse = (0.1, 0.9) if ranking in ("ppl", "sim") else (0.9, 0.1)
        images = [{"truth": ["dog"], "labels": [("dog", better)]}, {"truth": ["cat"], "labels": [("dog", worse)]}]
        assert by_name(analyse(images, ranking=ranking))["dog"].average_precision == 1.0

    def test_confusions_are_what_images_that_lack_a_name_list_instead(self, analyse: AnalyseFunction) -> None:
        images = [
            {"truth": ["dog"], "labels": ["wolf", "tree"]},
            {"truth": ["dog"], "labels": ["wolf", "fox"]},
            {"truth": ["dog"], "labels": ["dog", "cat"]},
            {"truth": ["dog", "tree"], "labels": ["tree", "bird"]},
        ]
        confusions = by_name(analyse(images), 2)["dog"].confusions
        assert confusions == [("wolf", 2), ("bird", 1), ("fox", 1)]

    def test_hostile_labels_are_counted_like_others(self, analyse: AnalyseFunction) -> None:
        hostile = ["it's", 'a "b"', "x\ny", "a,b;--", "🐙 octopus", "שלום", "%_*", "DROP TABLE names"]
        analysis = analyse([{"truth": hostile, "labels": hostile}])
        assert values_at(analysis, 8)["recall_macro"] == 1.0


class TestMeanAveragePrecision:
    """The mean over names and how it scatters."""

    @pytest.mark.parametrize("seed", range(3))
    def test_it_is_the_mean_of_the_names_with_support_at_any_rank(self, analyse: AnalyseFunction, seed: int) -> None:
        analysis = analyse(random_images(seed, 60))
        supported = [label.average_precision for label in analysis.labels(1) if label.average_precision is not None]
        assert analysis.mean_average_precision().value == pytest.approx(np.mean(supported), abs=1e-12)

    def test_its_interval_is_over_names(self, analyse: AnalyseFunction) -> None:
        images = [{"truth": [f"name{n}"], "labels": [f"name{n}" if n % 4 else "other"]} for n in range(200)]
        estimate = analyse(images).mean_average_precision()
        margin = 1.96 * (0.75 * 0.25 / 200) ** 0.5
        assert estimate.value == pytest.approx(0.75)
        assert estimate.low == pytest.approx(0.75 - margin, abs=0.1 * margin)
        assert estimate.high == pytest.approx(0.75 + margin, abs=0.1 * margin)


class TestCoverage:
    """What the labels can name at all."""

    def test_true_names_that_are_listed_for_any_image_are_covered(self, analyse: AnalyseFunction) -> None:
        vocabulary = Vocabulary(title="v", fold_plurals=True, keep=frozenset(), deny=frozenset({"photo"}))
        images = [
            {"truth": ["dog", "cat"], "labels": ["Dogs", "dog", "photo"]},
            {"truth": ["dog", "tree"], "labels": ["cats", "sky"]},
            {"truth": None, "labels": ["tree", "photo"]},
        ]
        coverage = analyse(images, vocabulary=vocabulary).coverage()
        assert coverage == Coverage(
            n_true_names=3,
            n_true_names_listed=2,
            n_truths=4,
            n_truths_listed=3,
            n_names_listed=3,
            n_labels=5,
            n_labels_denied=1,
        )
        assert coverage.shares == {"true_names_listed": 2 / 3, "truths_listed": 0.75, "labels_denied": 0.2}

    @pytest.mark.parametrize("seed", range(3))
    def test_no_micro_recall_is_above_the_share_of_truths_that_are_covered(
        self, analyse: AnalyseFunction, seed: int
    ) -> None:
        analysis = analyse(random_images(seed, 5))
        assert values_at(analysis, 200)["recall_micro"] <= analysis.coverage().shares["truths_listed"]


class TestWiderTerms:
    """Wider and narrower names as hits."""

    WIDER: ClassVar = {"puppy": "dog", "dog": "animal", "cat": "animal", "sofa": "furniture"}

    @staticmethod
    def values_with(
        analyse: AnalyseFunction, images: list[dict[str, Any]], wider: dict[str, str], k: int = 10
    ) -> dict[str, float]:
        vocabulary = Vocabulary(title="v", fold_plurals=True, keep=frozenset(), deny=frozenset(), wider=wider)
        (at_k,) = compare_terms(analyse(images, vocabulary=vocabulary), vocabulary).recall([k])
        return {name: estimate.value for name, estimate in at_k.measures.items()}

    @pytest.mark.parametrize(
        ("true", "listed", "is_hit"),
        [
            ("dog", "dogs", True),
            ("dog", "animal", True),
            ("animals", "dog", True),
            ("puppy", "animal", True),
            ("animal", "puppies", True),
            ("dog", "cat", False),
            ("dog", "furniture", False),
            ("tree", "tree", True),
        ],
    )
    def test_a_wider_or_narrower_term_is_a_hit_and_a_sibling_is_none(
        self, analyse: AnalyseFunction, true: str, listed: str, is_hit: bool
    ) -> None:
        images = [{"truth": [true], "labels": [listed]}]
        assert self.values_with(analyse, images, self.WIDER)["hit"] == is_hit

    def test_one_wide_label_finds_all_that_it_covers_and_is_one_hit(self, analyse: AnalyseFunction) -> None:
        images = [{"truth": ["dog", "cat", "sofa"], "labels": ["animal", "tree"]}]
        values = self.values_with(analyse, images, self.WIDER)
        assert (values["recall_macro"], values["precision_macro"]) == (2 / 3, 1 / 2)

    @pytest.mark.parametrize("k", [1, 2, 5, 50])
    def test_measures_are_those_of_plain_computation(self, analyse: AnalyseFunction, k: int) -> None:
        images = random_images(k, 60)
        wider = {"ski": "tie", "tie": "bus", "cat": "tree"}
        alike = {frozenset(pair) for pair in [("ski", "tie"), ("tie", "bus"), ("ski", "bus"), ("cat", "tree")]}
        name_of = Vocabulary(title="v", fold_plurals=True, keep=frozenset(), deny=frozenset()).name_of
        expected = oracle.measures_at(
            texts(images), k, name_of, lambda true, listed: true == listed or frozenset((true, listed)) in alike
        )
        assert self.values_with(analyse, images, wider, k) == pytest.approx(expected, abs=1e-12)

    def test_terms_that_are_wider_than_themselves_in_a_circle_come_to_an_end(self, analyse: AnalyseFunction) -> None:
        images = [{"truth": ["dog"], "labels": ["hound"]}]
        assert self.values_with(analyse, images, {"dog": "canine", "canine": "hound", "hound": "dog"})["hit"] == 1.0

    def test_a_vocabulary_without_wider_terms_is_an_error_that_says_what_to_do(self, analyse: AnalyseFunction) -> None:
        with pytest.raises(TagstreamError, match=r"has no wider terms.*table \[wider\]"):
            compare_terms(analyse([{"truth": ["dog"], "labels": ["dog"]}]), read_vocabulary(None))


class TestWorstImages:
    """Where to look first."""

    IMAGES: ClassVar = [
        {"truth": ["dog", "cat"], "labels": ["dog", "cat"]},
        {"truth": ["dog"], "labels": ["tree", "bus"]},
        {"truth": ["dog", "cat", "tie"], "labels": []},
        {"truth": ["dog", "cat"], "labels": ["bus", "dog", "tree"]},
    ]

    def test_the_lowest_f1_comes_first_and_then_the_most_missing(self, analyse: AnalyseFunction) -> None:
        worst = analyse(self.IMAGES).worst_images(10, 3)
        assert [(image["key"], image["n_hits"], round(image["f1"], 3)) for image in worst] == [
            ("2", 0, 0.0),
            ("1", 0, 0.0),
            ("3", 1, 0.4),
        ]

    def test_it_says_what_is_missing_and_what_is_listed(self, analyse: AnalyseFunction) -> None:
        worst = {image["key"]: image for image in analyse(self.IMAGES).worst_images(10, 10)}
        assert (worst["3"]["missed"], worst["3"]["listed"]) == (["cat"], ["bus", "dog", "tree"])
        assert (worst["2"]["missed"], worst["2"]["listed"]) == (["cat", "dog", "tie"], [])
        assert worst["0"]["missed"] == []


class TestReliability:
    """Scores as probabilities."""

    def test_tenths_of_the_scores_and_their_share_of_hits(self, analyse: AnalyseFunction) -> None:
        images = [
            {"truth": ["dog"], "labels": [("dog", 1.0), ("cat", 0.25)]},
            {"truth": ["cat"], "labels": [("dog", 0.875), ("cat", 0.21875), ("tree", 0.0)]},
        ]
        rows = analyse(images).reliability()
        assert [tuple(row.values()) for row in rows] == [
            (0.0, 1, 0.0, 0.0),
            (0.2, 2, 0.234375, 0.5),
            (0.8, 1, 0.875, 0.0),
            (0.9, 1, 1.0, 1.0),
        ]
        assert calibration_error(rows) == pytest.approx((2 * (0.5 - 0.234375) + 0.875) / 5)

    @pytest.mark.parametrize("ranking", ["ppl", "sim"])
    def test_scores_that_are_no_probabilities_have_none(self, analyse: AnalyseFunction, ranking: str) -> None:
        with pytest.raises(TagstreamError, match=f"scores of the ranking {ranking} are no probabilities"):
            analyse([{"truth": ["dog"], "labels": ["dog"]}], ranking=ranking).reliability()


def test_rejected_images_do_not_count(analyse: AnalyseFunction) -> None:
    rejected = {"truth": ["cat"], "caption": "a cat", "labels": [], "status": REJECTED}
    assert analyse([{"truth": ["dog"], "labels": ["dog"]}, rejected]).n_images == 1


def test_of_several_runs_one_is_measured(tmp_path: Any) -> None:
    store = Store(str(tmp_path))
    for run in ("run-1", "run-2"):
        store.create_run(run_record(run))
        commit_judged(store, run, {"a": [{"truth": ["dog"], "labels": ["dog" if run == "run-2" else "cat"]}]})
    connection = open_store(store.url)
    assert values_at(analyse_run(connection, "run-1", "labels"), 1)["hit"] == 0.0
    assert values_at(analyse_run(connection, "run-2", "labels"), 1)["hit"] == 1.0


def test_a_run_that_is_not_there_is_an_error(tmp_path: Any) -> None:
    store = Store(str(tmp_path))
    store.create_run(run_record(RUN))
    with pytest.raises(TagstreamError, match="there is no run other in the store"):
        analyse_run(open_store(store.url), "other", "labels")


@pytest.mark.parametrize("truth", ["labels", "captions"])
def test_a_run_without_truth_is_an_error_that_says_what_is_missing(analyse: AnalyseFunction, truth: str) -> None:
    with pytest.raises(TagstreamError, match=r"no image of run run-1 has .*; recall needs a truth"):
        analyse([{"truth": None, "labels": ["dog"]}], truth=truth)


def test_a_run_of_an_unknown_ranking_is_an_error_that_names_the_run(analyse: AnalyseFunction) -> None:
    with pytest.raises(TagstreamError, match="the record of run run-1 cannot be understood: ranking is 'best'"):
        analyse([{"truth": ["dog"], "labels": ["dog"]}], ranking="best")


class TestWhatIsAskedFor:
    """Orders, limits and what is left out."""

    def test_each_k_is_measured_once_the_lowest_first(self, analyse: AnalyseFunction) -> None:
        analysis = analyse(random_images(0, 20))
        once = [analysis.recall([k])[0] for k in (1, 5)]
        assert analysis.recall([5, 1, 5]) == once
        assert [(at_k.shard, at_k.k, at_k.n_images) for at_k in once] == [(None, k, analysis.n_images) for k in (1, 5)]

    def test_of_more_confusions_the_three_most_frequent_are_told_equals_by_the_alphabet(
        self, analyse: AnalyseFunction
    ) -> None:
        images = [{"truth": ["dog"], "labels": labels} for labels in (["wolf", "fox"], ["wolf", "owl", "bee"], ["ant"])]
        assert by_name(analyse(images))["dog"].confusions == [("wolf", 2), ("ant", 1), ("bee", 1)]

    def test_confusions_are_counted_among_the_first_k(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["dog"], "labels": ["wolf", "fox", "dog"]}])
        assert by_name(analysis, 1)["dog"].confusions == [("wolf", 1)]
        assert by_name(analysis, 3)["dog"].confusions == []

    def test_names_are_counted_among_the_first_k_the_most_frequent_truths_first(self, analyse: AnalyseFunction) -> None:
        images = [
            {"truth": ["dog", "cat"], "labels": ["dog", "bee"]},
            {"truth": ["dog"], "labels": ["ant", "dog"]},
        ]
        analysis = analyse(images)
        assert [tuple(row.values()) for row in analysis.name_counts(1)] == [
            ("dog", 2, 1, 1),
            ("cat", 1, 0, 0),
            ("ant", 0, 1, 0),
        ]
        assert [tuple(row.values()) for row in analysis.name_counts(2)] == [
            ("dog", 2, 2, 2),
            ("cat", 1, 0, 0),
            ("ant", 0, 1, 0),
            ("bee", 0, 1, 0),
        ]

    def test_equally_bad_images_come_in_the_order_of_shards_and_keys(self, analyse: AnalyseFunction) -> None:
        image = {"truth": ["dog"], "labels": ["cat"]}
        worst = analyse({"b": [image] * 2, "a": [image] * 2}).worst_images(5, 3)
        assert [(found["shard"], found["key"]) for found in worst] == [("a", "0"), ("a", "1"), ("b", "0")]

    def test_the_f1_of_an_image_is_that_of_its_first_k(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["dog", "cat"], "labels": ["dog", "bee", "cat", "ant"]}])
        found = {k: analysis.worst_images(k, 1)[0] for k in (1, 3, 4)}
        assert {k: image["f1"] for k, image in found.items()} == pytest.approx({1: 2 / 3, 3: 4 / 5, 4: 2 / 3})
        assert [found[1][name] for name in ("n_truth", "n_hits", "missed", "listed")] == [2, 1, ["cat"], ["dog"]]

    def test_an_image_all_of_whose_labels_are_denied_lists_nothing(self, analyse: AnalyseFunction) -> None:
        vocabulary = Vocabulary(title="v", fold_plurals=True, keep=frozenset(), deny=frozenset({"photo"}))
        images = [{"truth": ["dog"], "labels": ["dog"]}, {"truth": ["cat"], "labels": ["photo", "photos"]}]
        values = values_at(analyse(images, vocabulary=vocabulary), 5)
        assert (values["precision_micro"], values["precision_macro"], values["recall_micro"]) == (1.0, 0.5, 0.5)

    def test_coverage_counts_labels_of_images_with_a_truth(self, analyse: AnalyseFunction) -> None:
        images = [{"truth": ["dog"], "labels": ["dog", "bee"]}, {"truth": None, "labels": ["cat", "ant", "owl"]}]
        coverage = analyse(images).coverage()
        assert (coverage.n_labels, coverage.n_names_listed) == (2, 2)

    @pytest.mark.parametrize("ranking", ["prob", "none"])
    def test_rankings_by_probability_have_a_reliability(self, analyse: AnalyseFunction, ranking: str) -> None:
        analysis = analyse([{"truth": ["dog"], "labels": [("dog", 0.5)]}], ranking=ranking)
        assert analysis.ranking.is_probability
        assert [tuple(row.values()) for row in analysis.reliability()] == [(0.5, 1, 0.5, 1.0)]

    def test_the_reliability_of_a_name_is_that_of_its_best_score(self, analyse: AnalyseFunction) -> None:
        analysis = analyse([{"truth": ["dog"], "labels": [("Dogs", 0.75), ("dog", 0.25)]}])
        assert [tuple(row.values()) for row in analysis.reliability()] == [(0.7, 1, 0.75, 1.0)]

    def test_captions_of_rejected_images_are_no_truth(self, analyse: AnalyseFunction) -> None:
        rejected = {"caption": "Two cats on a bench.", "labels": [], "status": REJECTED}
        analysis = analyse([{"caption": "A dog sits.", "labels": ["dog"]}, rejected], truth="captions")
        assert (analysis.n_images, values_at(analysis, 1)["recall_micro"]) == (1, 1.0)
