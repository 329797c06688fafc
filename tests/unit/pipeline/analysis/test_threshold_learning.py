"""Thresholds of names: learned as a plain computation would, written, read, applied."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis import threshold_learning
from pipeline.analysis.recall import RunAnalysis, analyse_run
from pipeline.analysis.threshold_learning import (
    Counts,
    LearnedThresholds,
    NameThreshold,
    learn_thresholds,
    wilson_interval,
)
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.thresholds import Thresholds, read_thresholds, write_thresholds
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.store import Store
from schemas import image_id
from tests.fixtures.tables import commit_judged, run_record

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


class Oracle:
    """Thresholds as the module `threshold_learning` describes them, score by score, in plain Python."""

    def __init__(self, occurrences: Sequence[tuple[str, float, bool]], target: float) -> None:
        self.occurrences = occurrences
        self.target = target
        self.grid = sorted({goodness for _, goodness, _ in occurrences})
        self.curve = {step: self._precision(occurrences, step) for step in self.grid}
        self.common = min((step for step in self.grid if self.curve[step] >= target), default=math.inf)
        self.hit_rates = {step: self._hit_rate(step) for step in self.grid}
        self.strength = self._strength()

    def threshold(self, name: str) -> float:
        own = [(goodness, hit) for other, goodness, hit in self.occurrences if other == name]
        worst = min(goodness for goodness, _ in own)
        for step in self.grid:
            if step < min(worst, self.common):
                continue
            above = [hit for goodness, hit in own if goodness >= step]
            prior = self._prior(step, [(goodness, hit) for goodness, hit in own if goodness < step])
            if (sum(above) + self.strength * prior) / (len(above) + self.strength) >= self.target - 1e-9:
                return step
        return math.inf

    def _prior(self, step: float, below: list[tuple[float, bool]]) -> float:
        lower = [other for other in self.grid if other <= step]
        pooled = max(self.curve[other] for other in lower)
        if not below:
            return pooled
        expected = sum(self.hit_rates[goodness] for goodness, _ in below) / len(below)
        if expected in (0, 1):
            return pooled
        rate = (sum(hit for _, hit in below) + self.strength * expected) / (len(below) + self.strength)
        ratio = rate / (1 - rate) / (expected / (1 - expected))
        if ratio < 1:
            sizes = {other: sum(goodness >= other for _, goodness, _ in self.occurrences) for other in lower}
            pooled = max(min(self.curve[other], 1 - 0.5 / sizes[other]) for other in lower)
        if pooled == 1:
            return 1.0
        odds = ratio * pooled / (1 - pooled)
        return odds / (1 + odds)

    def _hit_rate(self, step: float) -> float:
        """Of the scores whose middle place lies within a twentieth of all occurrences."""
        goodness = np.array([goodness for _, goodness, _ in self.occurrences])
        hits = np.array([hit for _, _, hit in self.occurrences])
        places = {s: (goodness > s).sum() + (goodness == s).sum() / 2 for s in self.grid}
        near = [s for s in self.grid if abs(places[s] - places[step]) <= len(goodness) / 20]
        return float(hits[np.isin(goodness, near)].mean())

    def _strength(self) -> float:
        def log_beta(a: float, b: float) -> float:
            return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

        counts = []
        for name in {name for name, _, _ in self.occurrences}:
            own = [(goodness, hit) for other, goodness, hit in self.occurrences if other == name]
            mean = sum(self.hit_rates[goodness] for goodness, _ in own) / len(own)
            if 0 < mean < 1:
                n_hits = sum(hit for _, hit in own)
                counts.append((n_hits, len(own) - n_hits, mean))
        likelihoods = {}
        for m in (2**power for power in range(11)):
            terms = (
                log_beta(a + m * mean, b + m * (1 - mean)) - log_beta(m * mean, m * (1 - mean)) for a, b, mean in counts
            )
            likelihoods[m] = sum(terms)
        best = max(likelihoods.values())
        return max(strength for strength, value in likelihoods.items() if value >= best - 1.92)

    @staticmethod
    def _precision(occurrences: Sequence[tuple[str, float, bool]], step: float) -> float:
        above = [hit for _, goodness, hit in occurrences if goodness >= step]
        return sum(above) / len(above)


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


def thresholds_of(**changed: Any) -> Thresholds:
    values: dict[str, Any] = {
        "run": RUN,
        "model_fingerprint": "0123",
        "ranking": "prob",
        "direction": "highest",
        "truth": "labels",
        "vocabulary": read_vocabulary(None).version,
        "target_precision": 0.9,
        "common": 0.5,
        "thresholds": {"dog": 0.25, "cat": math.inf},
    }
    return Thresholds(**{**values, **changed})


class TestFile:
    """Thresholds as TOML."""

    # What Parquet and UTF-8 can hold; a name never is empty. A busy disk takes its time.
    @given(
        names=st.dictionaries(
            st.text(st.characters(codec="utf-8"), min_size=1), st.floats(width=32, allow_nan=False), max_size=5
        ),
        run=st.text(st.characters(codec="utf-8")),
        common=st.floats(allow_nan=False),
    )
    def test_any_name_and_number_is_read_as_it_was_written(
        self, tmp_path_factory: pytest.TempPathFactory, names: dict[str, float], run: str, common: float
    ) -> None:
        path = tmp_path_factory.mktemp("toml") / "thresholds.toml"
        thresholds = thresholds_of(thresholds=names, run=run, common=common)
        write_thresholds(path, thresholds)
        assert read_thresholds(path) == thresholds

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("common = 0.5", "common = nan", "common is nan; expected a number"),
            ("common = 0.5", 'common = "0.5"', "common is '0.5'; expected a number"),
            ("common = 0.5", "common = true", "common is True; expected a number"),
            ("common = 0.5", f"common = {10**400}", "0; expected a number"),
            ("common = 0.5", "", "have no common"),
            ("common = 0.5", "common = 0.5\nfoo = 1", "unknown key 'foo'"),
            ('"dog" = 0.25', '"dog" = nan', "threshold 'dog' is nan; expected a number"),
            ('"dog" = 0.25', '"dog" = "x"', "threshold 'dog' is 'x'; expected a number"),
            ('"dog" = 0.25', '"dog" = 1\n"dog" = 2', "no valid TOML"),
            ('direction = "highest"', 'direction = "lowest"', "the best scores of the ranking prob are the highest"),
            ('direction = "highest"', 'direction = "up"', "direction is 'up'; expected one of highest, lowest"),
            ('ranking = "prob"', 'ranking = "best"', "ranking is 'best'; expected one of"),
            ('truth = "labels"', "truth = 1", "truth is 1; expected a text"),
            ("target_precision = 0.9", "target_precision = 90", "target_precision is 90.0; expected more than 0"),
        ],
    )
    def test_what_does_not_fit_is_named_with_its_file(self, tmp_path: Path, old: str, new: str, message: str) -> None:
        path = tmp_path / "mine.toml"
        write_thresholds(path, thresholds_of())
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(TagstreamError) as caught:
            read_thresholds(path)
        assert message in str(caught.value)
        assert "mine.toml" in str(caught.value)

    def test_a_file_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(TagstreamError, match=r"cannot read the thresholds .*none.toml"):
            read_thresholds(tmp_path / "none.toml")


class TestConfidentLabels:
    """The view of labels that reach their thresholds."""

    @staticmethod
    def confident(
        tmp_path: Path,
        thresholds: Thresholds,
        labels: Sequence[tuple[str, float]],
        vocabulary: Vocabulary | None = None,
    ) -> list[tuple[str, float]]:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN, labelling={"ranking": thresholds.ranking}))
        commit_judged(store, RUN, {"a": [{"labels": labels}]})
        connection = open_store(store.url, vocabulary, thresholds)
        found: list[tuple[str, float]] = connection.sql(
            "SELECT label, score FROM confident_labels ORDER BY rank"
        ).fetchall()
        return found

    def test_a_label_reaches_its_names_threshold_or_the_common_one(self, tmp_path: Path) -> None:
        labels = [("Dogs", 0.25), ("dog", 0.2), ("cat", 0.99), ("tree", 0.5), ("tie", 0.4)]
        assert [label for label, _ in self.confident(tmp_path, thresholds_of(), labels)] == ["Dogs", "tree"]

    def test_where_the_lowest_is_best_lower_scores_reach_it(self, tmp_path: Path) -> None:
        thresholds = thresholds_of(
            ranking="ppl", direction="lowest", common=2.0, thresholds={"dog": 3.0, "cat": -math.inf}
        )
        labels = [("dog", 3.0), ("dogs", 3.1), ("cat", 1.0), ("tree", 2.0), ("tie", 2.5)]
        assert [label for label, _ in self.confident(tmp_path, thresholds, labels)] == ["dog", "tree"]

    @given(score=st.floats(0, 1, width=32))
    def test_a_score_reaches_itself_as_it_is_written(
        self, tmp_path_factory: pytest.TempPathFactory, score: float
    ) -> None:
        shortest = float(str(np.float32(score)))
        assert np.float32(shortest) == np.float32(score)

    def test_denied_labels_are_not_confident(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text('deny = ["dog"]')
        vocabulary = read_vocabulary(tmp_path / "mine.toml")
        thresholds = thresholds_of(vocabulary=vocabulary.version)
        assert self.confident(tmp_path, thresholds, [("dog", 1.0), ("tree", 0.9)], vocabulary) == [
            ("tree", pytest.approx(0.9))
        ]

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

    def test_without_thresholds_there_is_no_such_view(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        store.create_run(run_record(RUN))
        assert open_store(store.url).sql("SHOW TABLES").filter("name = 'confident_labels'").fetchall() == []

    def test_names_of_another_vocabulary_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            TagstreamError, match=r"for names of the vocabulary mine-0, the store was opened with default-"
        ):
            self.confident(tmp_path, thresholds_of(vocabulary="mine-0"), [("dog", 1.0)])

    @pytest.mark.parametrize(
        "record", [{"labelling": {"ranking": "ppl"}}, {"model_fingerprint": "9", "labelling": {"ranking": "prob"}}]
    )
    def test_a_store_without_such_scores_is_refused(self, tmp_path: Path, record: dict[str, Any]) -> None:
        store = Store(str(tmp_path))
        store.create_run(run_record(RUN, **record))
        with pytest.raises(
            TagstreamError, match=r"the model 0123 ranked by prob, as of run run-1; the store has no such"
        ):
            open_store(store.url, None, thresholds_of())

    def test_runs_with_other_scores_are_left_out(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        for run, ranking in ((RUN, "prob"), ("run-2", "sim"), ("run-3", "prob")):
            store.create_run(run_record(run, labelling={"ranking": ranking}))
            commit_judged(store, run, {"a": [{"labels": [("dog", 0.9)]}]})
        connection = open_store(store.url, None, thresholds_of())
        assert connection.sql("SELECT run FROM confident_labels ORDER BY run").fetchall() == [(RUN,), ("run-3",)]


class TestWords:
    """What a file of thresholds says, and what it may hold."""

    @pytest.mark.parametrize(
        ("ranking", "direction", "sentences"),
        [
            ("prob", "highest", ("where its score is at or above the threshold", "No score is at or above inf.")),
            ("sim", "lowest", ("where its score is at or below the threshold", "No score is at or below -inf.")),
        ],
    )
    def test_a_file_says_which_scores_are_believed(
        self, tmp_path: Path, ranking: str, direction: str, sentences: tuple[str, str]
    ) -> None:
        write_thresholds(tmp_path / "t.toml", thresholds_of(ranking=ranking, direction=direction))
        first, second = (tmp_path / "t.toml").read_text("utf-8").splitlines()[:2]
        assert sentences[0] in first
        assert second == f"# {sentences[1]}"

    @pytest.mark.parametrize("name", ["a\x7fb", 'a"b', "a\\b", "a\nb", "\x00\x1f", "a.b = 1", "[x]", "🐙"])
    def test_a_name_with_signs_of_toml_is_read_as_it_was_written(self, tmp_path: Path, name: str) -> None:
        thresholds = thresholds_of(thresholds={name: 0.5})
        write_thresholds(tmp_path / "t.toml", thresholds)
        assert read_thresholds(tmp_path / "t.toml") == thresholds

    @pytest.mark.parametrize("changed", [{"target_precision": 1.0}, {"target_precision": 1e-9}, {"truth": "captions"}])
    def test_the_outermost_values_are_read(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        write_thresholds(tmp_path / "t.toml", thresholds_of(**changed))
        assert read_thresholds(tmp_path / "t.toml") == thresholds_of(**changed)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"target_precision": 0.0}, "target_precision is 0.0; expected more than 0 and at most 1"),
            ({"target_precision": -0.5}, "target_precision is -0.5; expected more than 0 and at most 1"),
            ({"target_precision": 1.001}, "target_precision is 1.001; expected more than 0 and at most 1"),
            ({"truth": "nouns"}, "truth is 'nouns'; expected one of labels, captions"),
            ({"ranking": "sim"}, "direction is 'highest'; the best scores of the ranking sim are the lowest"),
        ],
    )
    def test_values_outside_are_refused(self, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
        write_thresholds(tmp_path / "t.toml", thresholds_of(**changed))
        with pytest.raises(TagstreamError, match=re.escape(message)):
            read_thresholds(tmp_path / "t.toml")

    def test_thresholds_that_are_no_table_are_refused(self, tmp_path: Path) -> None:
        write_thresholds(tmp_path / "t.toml", thresholds_of())
        text = (tmp_path / "t.toml").read_text("utf-8").split("[thresholds]")[0]
        (tmp_path / "t.toml").write_text(f"{text}thresholds = [0.5]\n", "utf-8")
        with pytest.raises(TagstreamError, match=r"thresholds is \[0.5\]; expected a table of numbers"):
            read_thresholds(tmp_path / "t.toml")


@pytest.mark.parametrize(("ranking", "score"), [("prob", 0.7), ("ppl", 0.1), ("sim", 0.1)])
def test_a_score_reaches_the_threshold_that_is_written_like_it(tmp_path: Path, ranking: str, score: float) -> None:
    # As float32, 0.7 is a little less and 0.1 a little more.
    direction = "highest" if ranking == "prob" else "lowest"
    thresholds = thresholds_of(ranking=ranking, direction=direction, common=score, thresholds={"dog": score})
    labels = [("dog", score), ("cat", score)]
    assert [label for label, _ in TestConfidentLabels.confident(tmp_path, thresholds, labels)] == ["dog", "cat"]


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
