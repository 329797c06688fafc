"""Thresholds of names, learned as a plain computation would."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.analysis import threshold_learning
from pipeline.analysis.recall import RunAnalysis, analyse_run
from pipeline.analysis.reviewed import analyse_reviews
from pipeline.analysis.threshold_learning import (
    Counts,
    LearnedThresholds,
    NameThreshold,
    learn_thresholds,
    wilson_interval,
)
from pipeline.catalog.views import open_store
from pipeline.naming.thresholds import read_thresholds, write_thresholds
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store
from schemas import image_id
from tests.fixtures.stored.reviewed import review_by_truth
from tests.fixtures.stored.tables import commit_judged, run_record
from tests.unit.pipeline.analysis.threshold_oracle import Oracle

RUN = "run-1"
WORDS = ["dog", "cat", "tree", "tie", "x'y", "שלום", "🐙", 'al"so']
Image = Mapping[str, Any]
LearnFunction = Callable[..., LearnedThresholds]


@pytest.fixture
def learn(tmp_path: Path) -> LearnFunction:
    """A function that commits images to a store of their own and learns thresholds from them."""

    def build(images: Sequence[Image], target: float = 0.9, *, ranking: str = "prob") -> LearnedThresholds:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN, labelling={"top_k": 20, "ranking": ranking}))
        commit_judged(store, RUN, {"a": images})
        vocabulary = read_vocabulary(None)
        return learn_thresholds(analyse_run(open_store(store.url, vocabulary), RUN, "labels"), vocabulary, target)

    return build


def by_name(learned: LearnedThresholds) -> dict[str, NameThreshold]:
    return {name.name: name for name in learned.names}


def images_of(name: str, hits: Sequence[float], misses: Sequence[float]) -> list[dict[str, Any]]:
    """One image an occurrence of a name."""
    right = [{"truth": [name], "labels": [(name, score)]} for score in hits]
    return right + [{"truth": ["nothing"], "labels": [(name, score)]} for score in misses]


def random_images(seed: int, n_images: int, n_scores: int) -> list[dict[str, Any]]:
    """Images whose labels are oftener right at high scores, some words oftener than others; with ties."""
    rng = random.Random(seed)
    luck = {word: rng.uniform(-0.5, 0.3) for word in WORDS}
    images = []
    for _ in range(n_images):
        labels = [(word, rng.randrange(1, n_scores) / n_scores) for word in rng.sample(WORDS, rng.randrange(5))]
        labels.sort(key=lambda label: -label[1])
        truth = [word for word, score in labels if rng.random() < score + luck[word]]
        images.append({"truth": rng.choice([None, ["nothing", *truth], ["nothing", *truth]]), "labels": labels})
    return images


def occurrences_of(images: Sequence[Image], sign: int = 1) -> list[tuple[str, float, bool]]:
    """Name, goodness, whether it is right, of the images with a truth."""
    return [
        (name, float(np.float32(sign * score)), name in image["truth"])
        for image in images
        if image["truth"]
        for name, score in image["labels"]
    ]


class TestAgainstPlainComputation:
    """SQL against one score after another."""

    @pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
    @pytest.mark.parametrize(("seed", "n_images", "n_scores"), [(0, 150, 20), (1, 300, 100), (2, 60, 5), (3, 20, 1000)])
    def test_every_threshold_is_the_same(
        self, learn: LearnFunction, seed: int, n_images: int, n_scores: int, target: float
    ) -> None:
        images = random_images(seed, n_images, n_scores)
        oracle = Oracle(occurrences_of(images), target)
        learned = learn(images, target)
        assert learned.strength == oracle.strength
        assert np.float32(learned.thresholds.common) == oracle.common
        expected = {name: oracle.threshold(name) for name in {name for name, _, _ in oracle.occurrences}}
        assert {name: float(np.float32(value)) for name, value in learned.thresholds.thresholds.items()} == expected

    @pytest.mark.parametrize("ranking", ["ppl", "sim"])
    def test_where_the_lowest_score_is_best_the_order_is_turned(self, learn: LearnFunction, ranking: str) -> None:
        images = random_images(5, 200, 30)
        for image in images:
            image["labels"] = [(name, 2 - score) for name, score in image["labels"]]
        oracle = Oracle(occurrences_of(images, -1), 0.8)
        learned = learn(images, 0.8, ranking=ranking)
        assert learned.thresholds.direction == "lowest"
        assert np.float32(learned.thresholds.common) == -oracle.common
        expected = {name: -oracle.threshold(name) for name in {name for name, _, _ in oracle.occurrences}}
        assert {name: float(np.float32(value)) for name, value in learned.thresholds.thresholds.items()} == expected

    def test_what_a_name_shows_is_counted_from_its_threshold_on(self, learn: LearnFunction) -> None:
        images = random_images(1, 300, 100)
        learned = learn(images, 0.8)
        for name in learned.names:
            own = [(score, hit) for other, score, hit in occurrences_of(images) if other == name.name]
            kept = [hit for score, hit in own if score >= np.float32(name.threshold)]
            assert (name.counts.n_listed, name.counts.n_hits) == (len(kept), sum(kept))
            assert (name.n_listed_before, name.n_hits_before) == (len(own), sum(hit for _, hit in own))
            assert name.counts.n_truth == sum(name.name in (image["truth"] or ()) for image in images)

    def test_thresholds_of_one_half_are_judged_on_the_other(self, learn: LearnFunction) -> None:
        images = random_images(4, 400, 50)
        halves: list[list[Image]] = [[], []]
        for index, image in enumerate(images):
            halves[image_id("a", str(index)) & 1].append(image)
        expected = {way: [0, 0] for way in ("none", "common", "own")}
        for learning, judged in (halves, halves[::-1]):
            oracle = Oracle(occurrences_of(learning), 0.8)
            own = {name: oracle.threshold(name) for name in {name for name, _, _ in oracle.occurrences}}
            for name, score, hit in occurrences_of(judged):
                least = {"none": 0.0, "common": oracle.common, "own": own.get(name, oracle.common)}
                for way in expected:
                    if score >= least[way]:
                        expected[way][0] += 1
                        expected[way][1] += hit
        judged_counts = learn(images, 0.8).judged
        assert {way: [counts.n_listed, counts.n_hits] for way, counts in judged_counts.items()} == expected

    @pytest.mark.parametrize(("n_hits", "n"), [(0, 1), (1, 1), (9, 10), (35, 35), (123, 4567)])
    def test_the_interval_is_where_a_z_test_would_not_reject(self, n_hits: int, n: int) -> None:
        shares = np.linspace(0, 1, 200_001)[1:-1]
        accepted = shares[np.abs(n_hits / n - shares) <= 1.959964 * np.sqrt(shares * (1 - shares) / n)]
        assert wilson_interval(n_hits, n) == pytest.approx((accepted.min(), accepted.max()), abs=2e-5)

    def test_of_nothing_the_interval_is_everything(self) -> None:
        assert wilson_interval(0, 0) == (0, 1)


class TestKnownCases:
    """Cases whose answer is known."""

    def test_a_name_with_much_evidence_has_its_own_threshold(self, learn: LearnFunction) -> None:
        sure = images_of("dog", [0.3 + i / 1000 for i in range(300)], [0.2] * 100)
        unsure = images_of("cat", [0.8 + i / 2000 for i in range(300)], [0.1 + i / 1000 for i in range(600)])
        names = by_name(learn(sure + unsure))
        assert 0.2 < names["dog"].threshold <= 0.3
        assert 0.6 < names["cat"].threshold <= 0.8
        assert {name.origin for name in names.values()} == {"own"}

    def test_a_name_that_occurs_once_has_about_the_common_threshold(self, learn: LearnFunction) -> None:
        rng = random.Random(0)
        crowd: list[Image] = []
        for word in WORDS[1:]:
            scores = [rng.random() for _ in range(200)]
            right = [rng.random() < score for score in scores]
            crowd += images_of(
                word,
                [score for score, hit in zip(scores, right, strict=True) if hit],
                [score for score, hit in zip(scores, right, strict=True) if not hit],
            )
        learned = learn([*crowd, *images_of("dog", [0.3], [])], 0.8)
        assert learned.strength == 1024
        assert by_name(learned)["dog"].threshold == pytest.approx(learned.thresholds.common, abs=0.01)

    @pytest.mark.parametrize("n_misses", [100, 500])
    def test_a_name_that_is_never_right_gets_a_threshold_that_no_score_reaches(
        self, learn: LearnFunction, n_misses: int
    ) -> None:
        wrong = images_of("ghost", [], [(i + 1) / (n_misses + 1) for i in range(n_misses)])
        right = images_of("dog", [i / 300 for i in range(301)], [i / 3000 for i in range(30)])
        ghost = by_name(learn(wrong + right))["ghost"]
        assert (ghost.threshold, ghost.origin, ghost.counts.n_listed) == (math.inf, "never", 0)

    def test_where_all_is_right_everything_passes(self, learn: LearnFunction) -> None:
        learned = learn(images_of("dog", [0.1, 0.5], []) + images_of("cat", [0.2], []))
        assert learned.thresholds.common == 0.1
        assert {(name.threshold, name.origin) for name in learned.names} == {(0.1, "common")}

    def test_where_nothing_is_right_nothing_passes(self, learn: LearnFunction) -> None:
        learned = learn(images_of("dog", [], [0.1, 0.9]))
        assert learned.thresholds.common == math.inf
        assert by_name(learned)["dog"].origin == "never"

    def test_equal_scores_pass_together_or_not_at_all(self, learn: LearnFunction) -> None:
        learned = learn(images_of("dog", [0.9] * 20 + [0.5] * 2, [0.5] * 8))
        assert learned.thresholds.common == 0.9

    def test_images_without_labels_leave_nothing_to_learn(self, learn: LearnFunction) -> None:
        learned = learn([{"truth": ["dog"], "labels": []}])
        assert (learned.names, learned.thresholds.common) == ([], math.inf)
        assert learned.judged["own"].n_truth == 1

    def test_images_without_truth_do_not_count(self, learn: LearnFunction) -> None:
        learned = learn([*images_of("dog", [0.5], []), {"truth": None, "labels": [("dog", 0.4), ("cat", 0.3)]}])
        assert [(name.name, name.n_listed_before) for name in learned.names] == [("dog", 1)]

    def test_a_name_counts_once_an_image_with_its_best_score(self, learn: LearnFunction) -> None:
        learned = learn([{"truth": ["dog"], "labels": [("dog", 0.6), ("dogs", 0.2)]}])
        assert (learned.thresholds.common, by_name(learned)["dog"].n_listed_before) == (pytest.approx(0.6), 1)


class TestCounts:
    """Shares of what is counted."""

    def test_shares_of_nothing_are_none(self) -> None:
        counts = Counts(n_truth=0, n_listed=0, n_hits=0)
        assert (counts.precision, counts.recall, counts.interval) == (None, None, (0, 1))

    def test_precision_is_of_what_is_listed_and_recall_of_what_is_true(self) -> None:
        counts = Counts(n_truth=8, n_listed=5, n_hits=2)
        assert (counts.precision, counts.recall, counts.interval) == (0.4, 0.25, wilson_interval(2, 5))

    def test_an_interval_does_not_leave_0_to_1(self) -> None:
        ends = [wilson_interval(n_hits, n) for n in range(1, 300) for n_hits in (0, n)]
        assert min(low for low, _ in ends) == 0
        assert max(high for _, high in ends) == 1

    @pytest.mark.parametrize(("confidence", "z"), [(0.5, 0.67449), (0.95, 1.959964), (0.99, 2.575829)])
    def test_an_interval_is_as_wide_as_its_confidence_wants(self, confidence: float, z: float) -> None:
        for end in wilson_interval(7, 20, confidence):
            assert abs(7 / 20 - end) == pytest.approx(z * (end * (1 - end) / 20) ** 0.5, rel=1e-5)


class TestSteps:
    """Which scores a threshold can have."""

    def steps(self, tmp_path: Path, images: Sequence[Image], ranking: str = "prob") -> tuple[list[float], RunAnalysis]:
        """The scores, from the worst, as the learning leaves them in its connection."""
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN, labelling={"ranking": ranking}))
        commit_judged(store, RUN, {"a": images})
        vocabulary = read_vocabulary(None)
        analysis = analyse_run(open_store(store.url, vocabulary), RUN, "labels")
        learn_thresholds(analysis, vocabulary, 0.8)
        return [g for (g,) in analysis.connection.sql("SELECT goodness FROM steps ORDER BY step").fetchall()], analysis

    def lists(self, hits: Sequence[float], misses: Sequence[float]) -> list[dict[str, Any]]:
        """Images that list many names each, all of them right or all wrong."""
        images = []
        for scores, are_right in ((hits, True), (misses, False)):
            for start in range(0, len(scores), 50):
                labels = [(f"thing {number}", score) for number, score in enumerate(scores[start : start + 50])]
                images.append({"truth": [name for name, _ in labels] if are_right else ["nothing"], "labels": labels})
        return images

    def test_up_to_a_thousand_hits_and_misses_all_scores_can_be_thresholds(self, tmp_path: Path) -> None:
        hits, misses = [i / 2048 for i in range(1000)], [(i + 0.5) / 2048 for i in range(1000)]
        assert self.steps(tmp_path, self.lists(hits, misses))[0] == sorted(hits + misses)

    def test_of_more_their_thousandths_can_be_thresholds(self, tmp_path: Path) -> None:
        scores = [i / 4096 for i in range(3000)]
        steps, _ = self.steps(tmp_path, self.lists(scores, []))
        assert (len(steps), steps[0], steps[-1]) == (1001, scores[0], scores[-1])
        # A thousandth is three scores, or four where it is rounded.
        assert max(np.diff(steps)) * 4096 <= 4

    def test_among_many_misses_every_score_of_a_few_hits_can_be_a_threshold(self, tmp_path: Path) -> None:
        hits, misses = [(i + 0.5) / 4096 for i in range(7, 3000, 100)], [i / 4096 for i in range(3000)]
        assert set(hits) <= set(self.steps(tmp_path, self.lists(hits, misses))[0])

    def test_of_very_many_images_one_in_several_gives_the_scores_and_all_are_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(threshold_learning, "_IMAGES_FOR_STEPS", 25)
        scores = [(i + 1) / 128 for i in range(100)]
        steps, analysis = self.steps(tmp_path, images_of("dog", scores, []))
        taken = [score for i, score in enumerate(scores) if image_id("a", str(i)) % 4 == 0]
        assert 0 < len(taken) < 50
        assert steps == taken
        cells = analysis.connection.sql("SELECT step, sum(n_listed)::INT FROM cells GROUP BY step ORDER BY step")
        # The scores below the lowest step count there.
        bounds = [-math.inf, *taken[1:], math.inf]
        assert cells.fetchall() == [
            (step, sum(low <= score < high for score in scores)) for step, (low, high) in enumerate(pairwise(bounds))
        ]


class TestWhatIsLearned:
    """Order, origin and counts of what was learned."""

    def test_the_most_listed_names_come_first_and_equals_by_the_alphabet(self, learn: LearnFunction) -> None:
        images = [*images_of("dog", [0.5], [0.4]), *images_of("ant", [0.5], []), *images_of("bee", [], [0.5])]
        learned = learn([*images, *images_of("cat", [0.5], [0.4])])
        assert [name.name for name in learned.names] == ["cat", "dog", "ant", "bee"]
        assert list(learned.thresholds.thresholds) == ["ant", "bee", "cat", "dog"]

    def test_a_name_that_is_never_true_has_a_truth_of_nothing(self, learn: LearnFunction) -> None:
        learned = learn([*images_of("dog", [0.5], []), *images_of("ghost", [], [0.4])])
        counts = {name.name: name.counts for name in learned.names}
        assert (counts["dog"].n_truth, counts["ghost"].n_truth) == (1, 0)
        assert counts["ghost"].recall is None

    def test_every_truth_is_judged_once_whichever_way(self, learn: LearnFunction) -> None:
        images = random_images(3, 50, 20)
        n_truths = sum(len(image["truth"] or ()) for image in images)
        assert {way: counts.n_truth for way, counts in learn(images).judged.items()} == {
            "none": n_truths,
            "common": n_truths,
            "own": n_truths,
        }

    @pytest.mark.parametrize(
        ("target", "name", "n_listed", "origin"), [(0.6, "dog", 8, "own"), (0.8, "🐙", 7, "shrunk")]
    )
    def test_a_threshold_is_a_names_own_from_as_many_occurrences_on_as_the_prior_is_strong(
        self, learn: LearnFunction, target: float, name: str, n_listed: int, origin: str
    ) -> None:
        learned = learn(random_images(9, 60, 40), target)
        found = by_name(learned)[name]
        assert (learned.strength, found.counts.n_listed, found.origin) == (8, n_listed, origin)

    def test_where_nothing_tells_names_apart_the_prior_is_the_strongest(self, learn: LearnFunction) -> None:
        assert learn(images_of("dog", [0.1, 0.5], []) + images_of("cat", [0.2], [])).strength == 1024

    def test_a_name_among_whose_scores_all_is_right_tells_nothing_of_how_alike_names_are(
        self, learn: LearnFunction
    ) -> None:
        images = [*random_images(9, 60, 40), *images_of("sun", [1.0] * 100, [])]
        oracle = Oracle(occurrences_of(images), 0.8)
        assert oracle.hit_rates[1.0] == 1
        assert learn(images, 0.8).strength == oracle.strength < 1024

    def test_a_target_of_certainty_is_reached_where_nothing_is_wrong(self, learn: LearnFunction) -> None:
        learned = learn(images_of("dog", [0.5, 0.6, 0.7], [0.25]), 1.0)
        assert learned.thresholds.common == 0.5
        assert by_name(learned)["dog"].threshold == 0.5

    @pytest.mark.parametrize(("n_hits", "n"), [(2, 3), (9, 10), (37, 38), (53, 54), (28, 58)])
    def test_a_target_that_is_reached_exactly_is_reached(self, learn: LearnFunction, n_hits: int, n: int) -> None:
        learned = learn(images_of("dog", [0.5] * n_hits, [0.5] * (n - n_hits)), n_hits / n)
        assert (learned.thresholds.common, by_name(learned)["dog"].threshold) == (0.5, 0.5)

    def test_what_was_learned_and_written_lets_pass_what_was_counted(
        self, learn: LearnFunction, tmp_path: Path
    ) -> None:
        learned = learn(random_images(7, 300, 1000), 0.8)
        write_thresholds(tmp_path / "t.toml", learned.thresholds)
        connection = open_store(str(tmp_path / "store"), None, read_thresholds(tmp_path / "t.toml"))
        query = """
            SELECT name, count(*) FROM confident_labels SEMI JOIN truth USING (run, image_id) GROUP BY name
        """
        counted = {name.name: name.counts.n_listed for name in learned.names if name.counts.n_listed}
        assert dict(connection.sql(query).fetchall()) == counted


class TestReviews:
    """The truth is what people said of a sample."""

    def learned(self, folder: Path, images: Sequence[Image], probabilities: Mapping[int, float]) -> LearnedThresholds:
        store = Store(str(folder))
        store.create_run(run_record(RUN, labelling={"top_k": 20, "ranking": "prob"}))
        commit_judged(store, RUN, {"a": images})
        review_by_truth(store, RUN, "a", images, probabilities)
        vocabulary = read_vocabulary(None)
        return learn_thresholds(analyse_reviews(open_store(store.url, vocabulary), RUN), vocabulary, 0.7)

    def test_where_all_images_are_reviewed_they_are_those_of_the_truth(
        self, learn: LearnFunction, tmp_path: Path
    ) -> None:
        images = [image for image in random_images(5, 120, 20) if image["truth"]]
        expected = learn(images, 0.7)
        found = self.learned(tmp_path / "reviewed", images, dict.fromkeys(range(len(images)), 1.0))
        assert (found.thresholds.truth, expected.thresholds.truth) == ("reviews", "labels")
        assert found.thresholds.thresholds == expected.thresholds.thresholds
        assert found.strength == expected.strength
        assert by_name(found) == by_name(expected)
        for way, counts in expected.judged.items():
            # Nothing is left to chance where every image was certain to be drawn.
            assert found.judged[way].interval == pytest.approx((counts.precision,) * 2)
            assert (found.judged[way].n_truth, found.judged[way].n_hits) == (counts.n_truth, counts.n_hits)

    def test_an_image_counts_for_as_many_as_it_stands_for(self, tmp_path: Path) -> None:
        images = [{"truth": ["dog"], "labels": [("dog", 0.5)]}] * 4 + [{"truth": ["cat"], "labels": [("dog", 0.5)]}] * 4
        found = self.learned(tmp_path, images, {place: 0.5 if place < 4 else 0.125 for place in range(8)})
        (dog,) = (name for name in found.names if name.name == "dog")
        assert dog.n_hits_before / dog.n_listed_before == pytest.approx((4 * 2) / (4 * 2 + 4 * 8))
        # Kish: (sum of weights)^2 / sum of their squares.
        assert dog.n_listed_before == pytest.approx((8 + 32) ** 2 / (4 * 2**2 + 4 * 8**2))
        everything = found.judged["none"]
        assert everything.precision == pytest.approx(8 / 40)
        assert everything.interval[0] < 8 / 40 < everything.interval[1]
