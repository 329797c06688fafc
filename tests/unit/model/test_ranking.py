"""Rankings and merging, on labels made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.choices import RANKINGS, find_ranking
from model.nxtp.similarity import branch_distances
from model.ranking import FlatBranches, Label, Spelling, rank_branches, score_branches
from model.sampling import Branches, SampledBatch
from tests.unit.model.slow_ranking import rank_slowly

DELIMITER = 9
PROB, PPL, SIM, NONE = RANKINGS.values()


def label(text: str, score: float, *, probs: tuple[float, ...] = (0.5, 0.5), finished: bool = True, first_id: int = 1):
    ids = (first_id, *range(20, 20 + len(probs) - 2), DELIMITER)
    return Label(text, score, ids, probs, finished)


def texts(labels: list[Label]) -> list[str]:
    return [each.text for each in labels]


def rank(labels, ranking, keep_unfinished=False, fold=None):
    """One image's labels, ranked by the code that ranks a batch's branches."""
    by_ids = {}
    for place, each in enumerate(labels):
        # Labels that are made by hand may share their tokens: here each has its own.
        by_ids[(1000 + place, *each.token_ids[1:])] = each
    branches = FlatBranches.of_lists([[(ids, each.token_probs, each.finished) for ids, each in by_ids.items()]])
    spelling = Spelling(lambda ids: by_ids[ids].text, fold)
    ranked = rank_branches(branches, np.array([each.score for each in labels]), spelling, ranking)
    return [
        replace(each, token_ids=(labels[each.token_ids[0] - 1000].token_ids[0], *each.token_ids[1:]))
        for each in ranked.to_lists(keep_unfinished)[0]
    ]


def score(ranking, probs: tuple[float, ...]) -> float:
    """The score of one branch."""
    return float(score_branches(FlatBranches.of_lists([[((1,) * len(probs), probs, True)]]), ranking)[0])


def test_prob_score_is_the_product_of_all_probabilities():
    assert score(PROB, (0.5, 0.25, 0.8)) == pytest.approx(0.1)


def test_ppl_score_is_the_inverse_geometric_mean():
    probs = (0.5, 0.25, 0.8)
    entropy = -sum(math.log(prob) for prob in probs) / 3
    assert score(PPL, probs) == pytest.approx(math.exp(entropy))


def test_none_score_is_the_first_probability():
    assert score(NONE, (0.3, 0.9)) == 0.3


def test_a_certain_branch_has_perplexity_one():
    assert score(PPL, (1.0, 1.0)) == 1.0


def test_a_token_of_probability_zero_gives_infinite_perplexity():
    assert score(PPL, (0.5, 0.0)) == math.inf


def test_a_token_of_probability_zero_gives_probability_zero():
    assert score(PROB, (0.5, 0.0)) == 0.0


def test_prob_puts_the_highest_score_first():
    labels = [label("low", 0.1), label("high", 0.7), label("middle", 0.2)]
    assert texts(rank(labels, PROB)) == ["high", "middle", "low"]


@pytest.mark.parametrize("ranking", [PPL, SIM], ids=["ppl", "sim"])
def test_ppl_and_sim_put_the_lowest_score_first(ranking):
    labels = [label("middle", 2.0), label("low", 1.5), label("high", 7.0)]
    assert texts(rank(labels, ranking)) == ["low", "middle", "high"]


def test_ppl_puts_an_impossible_branch_last():
    labels = [label("impossible", math.inf), label("unlikely", 1e9)]
    assert texts(rank(labels, PPL)) == ["unlikely", "impossible"]


def test_ppl_prefers_the_likelier_of_two_branches():
    likely, unlikely = (0.9, 0.9), (0.1, 0.1)
    labels = [label(text, score(PPL, probs)) for text, probs in (("unlikely", unlikely), ("likely", likely))]
    assert texts(rank(labels, PPL)) == ["likely", "unlikely"]


def test_none_keeps_branch_order():
    labels = [label("b", 0.1), label("c", 0.9), label("a", 0.5)]
    assert texts(rank(labels, NONE)) == ["b", "c", "a"]


@pytest.mark.parametrize("ranking", [PROB, PPL, SIM], ids=["prob", "ppl", "sim"])
def test_equal_scores_keep_branch_order(ranking):
    labels = [label(text, 0.5) for text in ("d", "a", "c", "b")]
    assert texts(rank(labels, ranking)) == ["d", "a", "c", "b"]


def test_empty_labels_are_no_labels():
    assert texts(rank([label("", 0.9), label("cat", 0.1)], PROB)) == ["cat"]


def test_unfinished_labels_are_dropped():
    assert texts(rank([label("long", 0.9, finished=False), label("cat", 0.1)], PROB)) == ["cat"]


def test_kept_unfinished_labels_come_last_in_branch_order():
    labels = [label("x", 0.1, finished=False), label("cat", 0.1), label("y", 0.9, finished=False)]
    assert texts(rank(labels, PROB, keep_unfinished=True)) == ["cat", "x", "y"]


def test_an_unfinished_label_is_not_merged_with_a_finished_one():
    labels = [label("cat", 0.1), label("cat", 0.2, finished=False)]
    assert [(each.score, each.finished) for each in rank(labels, PROB, keep_unfinished=True)] == [
        (0.1, True),
        (0.2, False),
    ]


def test_prob_sums_labels_spelled_alike():
    labels = [label("cat", 0.25), label("dog", 0.375), label("cat", 0.25)]
    assert [(each.text, each.score) for each in rank(labels, PROB)] == [("cat", 0.5), ("dog", 0.375)]


def test_prob_keeps_the_tokens_of_the_most_probable_of_three_alike():
    # The third is likelier than either of the others, and less likely than their sum.
    probs = [(0.5, 0.2), (0.5, 0.3), (0.5, 0.4)]
    labels = [label("cat", math.prod(p), probs=p, first_id=n) for n, p in enumerate(probs)]
    (merged,) = rank(labels, PROB)
    assert (merged.token_ids, merged.token_probs) == ((2, DELIMITER), (0.5, 0.4))


@pytest.mark.parametrize("ranking", [PPL, SIM], ids=["ppl", "sim"])
def test_ppl_and_sim_keep_the_best_of_labels_spelled_alike(ranking):
    labels = [label("cat", 3.0), label("cat", 2.0, first_id=2), label("cat", 4.0)]
    (merged,) = rank(labels, ranking)
    assert (merged.score, merged.token_ids[0]) == (2.0, 2)


def test_none_keeps_the_first_of_labels_spelled_alike():
    labels = [label("cat", 0.1), label("dog", 0.2), label("cat", 0.3)]
    assert [(each.text, each.score) for each in rank(labels, NONE)] == [("cat", 0.1), ("dog", 0.2)]


def test_an_image_without_branches_has_no_labels():
    assert rank([], PROB) == []


def test_a_label_keeps_its_delimiter_among_its_tokens():
    (kept,) = rank([label("cat", 0.1, first_id=3)], PROB)
    assert kept.token_ids == (3, DELIMITER)


def test_labels_that_fold_to_one_are_one_under_its_most_probable_spelling():
    labels = [label("a dog", 0.2, probs=(0.4, 0.5)), label("Dog", 0.3, probs=(0.6, 0.5)), label("cat", 0.1)]
    (first, second) = rank(labels, PROB, fold=lambda text: text.lower().removeprefix("a "))
    assert (first.text, first.score, second.text) == ("Dog", pytest.approx(0.5), "cat")


def test_branches_are_listed_without_their_padding():
    branches = Branches(
        token_ids_BKT=torch.tensor([[[3, DELIMITER, 0], [4, 5, 0]]]),
        token_probs_BKT=torch.tensor([[[0.5, 0.5, 0.0], [0.25, 0.5, 0.0]]]),
        n_tokens_BK=torch.tensor([[2, 2]]),
        finished_BK=torch.tensor([[True, False]]),
    )
    assert branches.to_lists() == [[((3, DELIMITER), (0.5, 0.5), True), ((4, 5), (0.25, 0.5), False)]]


def test_an_unknown_ranking_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="ranking is 'best'; expected one of prob, ppl, sim, none"):
        find_ranking("best")


VOCABULARY, WIDTH = 24, 6


def spell(ids: tuple[int, ...]) -> str:
    """Few words, so that branches spell the same, some in upper case; token 0 spells nothing."""
    words = [("" if token_id == 0 else "aAbB"[token_id % 4]) for token_id in ids if token_id != DELIMITER]
    return " ".join(words).strip()


def random_branches(seed: int, n_images: int = 5, top_k: int = 40, width: int = 5) -> Branches:
    """Branches with ties, zeros, labels that are alike, empty or unfinished, and the token 0 in front of padding."""
    rng = np.random.default_rng(seed)
    shape = (n_images, top_k, width)
    n_tokens = rng.integers(1, width + 1, shape[:2])
    is_token = np.arange(width) < n_tokens[..., None]
    ids = rng.integers(0, VOCABULARY, shape)
    finished = rng.random(shape[:2]) < 0.8
    ends = finished[..., None] & (np.arange(width) == n_tokens[..., None] - 1)
    ids = np.where(is_token, np.where(ends, DELIMITER, ids), 0)
    probs = rng.choice(np.array([0.0, 0.1, 0.3, 0.7, 1.0], np.float32), shape, p=[0.02, 0.28, 0.3, 0.3, 0.1])
    probs = np.where(rng.random(shape) < 0.5, probs, rng.random(shape, np.float32)) * is_token
    return Branches(*map(torch.from_numpy, (ids, probs.astype(np.float32), n_tokens, finished)))


@pytest.mark.parametrize("fold", [None, str.lower], ids=["as spelled", "folded"])
@pytest.mark.parametrize("ranking", RANKINGS.values(), ids=lambda ranking: ranking.name)
def test_a_batch_is_ranked_to_the_last_bit_as_label_by_label(ranking, fold):
    spelling = Spelling(spell, fold)
    for seed in range(10):
        branches = random_branches(seed)
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(5, 3, WIDTH, generator=generator), torch.randn(VOCABULARY, WIDTH, generator=generator)
        listed = branches.to_lists()
        expected = rank_slowly(listed, ranking, spell, fold or str, vectors if ranking.compares_with_image else None)
        for sampled in (branches, listed):
            flat = SampledBatch(sampled, vectors[0]).flat()
            scores = branch_distances(flat, *vectors) if ranking.name == "sim" else score_branches(flat, ranking)
            ranked = rank_branches(flat, scores, spelling, ranking)
            assert ranked.to_lists(keep_unfinished=True) == expected
            _assert_columns(ranked, expected)


def _assert_columns(ranked, expected: list[list[Label]]) -> None:
    """The columns hold the finished labels of the lists."""
    finished = [[each for each in image if each.finished] for image in expected]
    flat = [each for image in finished for each in image]
    assert len(ranked) == len(expected)
    assert ranked.n_labels_B.tolist() == [len(image) for image in finished]
    assert ranked.n_unfinished().tolist() == [
        len(image) - len(done) for image, done in zip(expected, finished, strict=True)
    ]
    assert (ranked.texts, ranked.scores_L.tolist()) == ([each.text for each in flat], [each.score for each in flat])
    assert ranked.first_token_probs().tolist() == [each.token_probs[0] for each in flat]
    assert ranked.n_tokens().tolist() == [len(each.token_ids) for each in flat]


@pytest.mark.parametrize("images", [[], [[]], [[], [], []]], ids=len)
def test_a_batch_without_branches_has_images_without_labels(images):
    flat = FlatBranches.of_lists(images)
    ranked = rank_branches(flat, score_branches(flat, PROB), Spelling(spell), PROB)
    assert (len(ranked), ranked.to_lists(keep_unfinished=True)) == (len(images), images)
    _assert_columns(ranked, images)


def test_branches_that_are_alike_are_spelled_once():
    spelled = []
    spelling = Spelling(lambda ids: spelled.append(ids) or "cat")
    branch = ((0,), (0.5,), True)
    flat = FlatBranches.of_lists([[branch, ((0, 0), (0.5, 0.5), True), branch], [branch]])
    assert spelling.texts(flat, np.arange(4)) == ["cat"] * 4
    assert spelled == [(0,), (0, 0)]
