"""Labels of images from those of their views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.choices import RANKINGS, Ranking
from model.images.views import cut_batches
from model.joined_views import JoinedLabels, join_views
from model.ranking import FlatBranches, Label, Spelling, rank_branches, score_branches
from tests.unit.model.slow_ranking import join_slowly, rank_slowly

END = 99
WORDS = ("", "cat", "Cat", "dog", "cow", "owl", "bus")
PROB, PPL, SIM, NONE = RANKINGS.values()
BY_BRANCH = [PROB, PPL, NONE]


def spell(ids: tuple[int, ...]) -> str:
    return " ".join(WORDS[token] for token in ids[:-1]).strip()


def branches(n: int, generator: np.random.Generator) -> list[tuple[tuple[int, ...], tuple[float, ...], bool]]:
    """Branches whose probabilities tie here and there."""
    made = []
    for _ in range(n):
        ids = (*generator.integers(0, len(WORDS), generator.integers(1, 3)).tolist(), END)
        probs = tuple((generator.integers(1, 5, len(ids)) / 4).tolist())
        made.append((ids, probs, bool(generator.random() < 0.8)))
    return made


def join(images: list[list[list]], ranking: Ranking, most: int, fold=None, batch: int = 3) -> JoinedLabels:  # type: ignore[no-untyped-def]
    """Branches of the views of images, ranked batch by batch and joined."""
    places = cut_batches([len(views) for views in images], batch)
    spelling = Spelling(spell, fold)
    ranked = []
    for of_batch in places:
        flat = FlatBranches.of_lists([images[image][view] for image, view in of_batch])
        ranked.append(rank_branches(flat, score_branches(flat, ranking), spelling, ranking))
    return join_views(ranked, places, len(images), ranking, most)


def texts(joined: JoinedLabels) -> list[list[tuple[str, int]]]:
    return [[(label.text, label.view) for label in labels] for labels in joined.to_lists()]


@pytest.mark.parametrize("ranking", BY_BRANCH, ids=lambda ranking: ranking.name)
@pytest.mark.parametrize("fold", [None, str.lower])
def test_joined_labels_are_those_that_plain_code_joins(ranking, fold):
    generator = np.random.default_rng(0)
    for most in (1, 3, 100):
        images = [
            [branches(int(generator.integers(0, 6)), generator) for _ in range(generator.integers(1, 5))]
            for _ in range(25)
        ]
        joined = join(images, ranking, most, fold)
        slow = [
            join_slowly(rank_slowly(views, ranking, spell, fold or str), ranking, most, fold or str) for views in images
        ]
        assert joined.to_lists(keep_unfinished=True) == slow
        flat = [label for labels in slow for label in labels if label.finished]
        assert joined.n_labels_B.tolist() == [sum(label.finished for label in labels) for labels in slow]
        assert joined.n_unfinished().tolist() == [sum(not label.finished for label in labels) for labels in slow]
        assert (joined.texts, joined.scores_L.tolist()) == ([each.text for each in flat], [each.score for each in flat])
        assert joined.view_L.tolist() == [label.view for label in flat]
        assert joined.n_tokens().tolist() == [len(label.token_ids) for label in flat]
        assert joined.first_token_probs().tolist() == [label.token_probs[0] for label in flat]


@pytest.mark.parametrize("wrong", ["sum", "first view"])
def test_other_rules_are_told_apart(wrong):
    cat, dog = (1, END), (3, END)
    images = [[[(cat, (0.5, 1.0), True), (dog, (0.4, 1.0), True)], [(dog, (0.45, 1.0), True), (cat, (0.1, 1.0), True)]]]
    assert texts(join(images, PROB, 9)) == [[("cat", 0), ("dog", 1)]]
    if wrong == "sum":
        one_view = [[[branch for view in images[0] for branch in view]]]
        assert texts(join(one_view, PROB, 9)) == [[("dog", 0), ("cat", 0)]]
    else:
        assert texts(join([[images[0][0]]], PROB, 9)) == [[("cat", 0), ("dog", 0)]]


@pytest.mark.parametrize("ranking", BY_BRANCH, ids=lambda ranking: ranking.name)
def test_one_view_alone_is_ranked_to_the_bit_as_it_was(ranking):
    generator = np.random.default_rng(1)
    views = [branches(8, generator) for _ in range(10)]
    flat = FlatBranches.of_lists(views)
    ranked = rank_branches(flat, score_branches(flat, ranking), Spelling(spell), ranking)
    joined = join_views([ranked], [[(image, 0) for image in range(10)]], 10, ranking, 8)
    assert joined.to_lists(keep_unfinished=True) == ranked.to_lists(keep_unfinished=True)
    assert np.array_equal(joined.scores_L, ranked.scores_L)
    assert np.array_equal(joined.first_token_probs(), ranked.first_token_probs())
    assert np.array_equal(joined.n_unfinished(), ranked.n_unfinished())


def test_how_views_are_cut_into_batches_changes_nothing():
    generator = np.random.default_rng(2)
    images = [[branches(5, generator) for _ in range(generator.integers(1, 5))] for _ in range(12)]
    first, *others = (join(images, PROB, 4, batch=batch).to_lists(keep_unfinished=True) for batch in (1, 2, 7, 100))
    assert all(other == first for other in others)


def test_no_images_have_no_labels():
    joined = join_views([], [], 0, PROB, 4)
    assert (len(joined), joined.to_lists(), joined.n_tokens().tolist()) == (0, [], [])


def test_tokens_and_probabilities_are_of_the_view_that_scores_best():
    owl = (5, END)
    weak, strong = (owl, (0.3, 0.5), True), (owl, (0.6, 0.5), True)
    ((label,),) = join([[[weak], [strong]]], PROB, 9).to_lists()
    assert label == replace(Label("owl", 0.3, owl, (0.6, 0.5), True), view=1)
