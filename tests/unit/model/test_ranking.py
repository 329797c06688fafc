"""Rankings and merging, on labels made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from model.choices import RANKINGS, find_ranking
from model.ranking import Label, make_label, rank, token_distances, with_similarity
from model.sampling import Branches

DELIMITER = 9
PROB, PPL, SIM, NONE = RANKINGS.values()


def label(text: str, score: float, *, probs: tuple[float, ...] = (0.5, 0.5), finished: bool = True, first_id: int = 1):
    ids = (first_id, *range(20, 20 + len(probs) - 2), DELIMITER)
    return Label(text, score, ids, probs, finished)


def spell(ids: tuple[int, ...]) -> str:
    return " ".join(f"w{token_id}" for token_id in ids)


def texts(labels: list[Label]) -> list[str]:
    return [each.text for each in labels]


def naive_distance(token_D: torch.Tensor, image_ND: torch.Tensor) -> float:
    total = 0.0
    for image_D in image_ND:
        dot = sum(float(a) * float(b) for a, b in zip(token_D, image_D, strict=True))
        length_a = math.sqrt(sum(float(a) ** 2 for a in token_D))
        length_b = math.sqrt(sum(float(b) ** 2 for b in image_D))
        total += math.sqrt(max(0.0, 2 - 2 * dot / (length_a * length_b))) / 2
    return total / len(image_ND)


@pytest.fixture
def embedding():
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def image_embeds():
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


def test_prob_score_is_the_product_of_all_probabilities():
    assert PROB.score_branch((0.5, 0.25, 0.8)) == pytest.approx(0.1)


def test_ppl_score_is_the_inverse_geometric_mean():
    probs = (0.5, 0.25, 0.8)
    entropy = -sum(math.log(prob) for prob in probs) / 3
    assert PPL.score_branch(probs) == pytest.approx(math.exp(entropy))


def test_none_score_is_the_first_probability():
    assert NONE.score_branch((0.3, 0.9)) == 0.3


def test_a_certain_branch_has_perplexity_one():
    assert PPL.score_branch((1.0, 1.0)) == 1.0


def test_a_token_of_probability_zero_gives_infinite_perplexity():
    assert PPL.score_branch((0.5, 0.0)) == math.inf


def test_a_token_of_probability_zero_gives_probability_zero():
    assert PROB.score_branch((0.5, 0.0)) == 0.0


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
    labels = [label(text, PPL.score_branch(probs)) for text, probs in (("unlikely", unlikely), ("likely", likely))]
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
    assert make_label((3, DELIMITER), (0.5, 0.25), True, spell, PROB).token_ids == (3, DELIMITER)


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


def test_token_distance_equals_a_naive_double_loop(embedding, image_embeds):
    expected = [naive_distance(token_D, image_embeds[0]) for token_D in embedding]
    # Float32 against Python's float64.
    assert token_distances(embedding, image_embeds[0]).tolist() == pytest.approx(expected, rel=1e-5)


def test_token_distance_is_0_to_itself_and_1_to_its_opposite():
    image_ND = torch.tensor([[3.0, 4.0]])
    assert token_distances(torch.tensor([[3.0, 4.0], [-6.0, -8.0]]), image_ND).tolist() == pytest.approx([0.0, 1.0])


def test_token_distance_of_equal_vectors_whose_cosine_is_rounded_above_1_is_a_number():
    vectors = torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    distances = [float(token_distances(vector[None], vector[None])) for vector in vectors]
    cosines = [float(F.normalize(vector[None]) @ F.normalize(vector[None]).T) for vector in vectors]
    assert max(cosines) > 1, "rounding should lead above 1"
    # The square root of a rounding error of 1e-7.
    assert distances == pytest.approx([0.0] * 100, abs=1e-3)


def test_sim_score_is_the_mean_over_the_labels_tokens_with_the_delimiter(embedding, image_embeds):
    ids = (3, 7, 3, DELIMITER)
    labels = [[Label("a", 0.0, ids, (0.5,) * 4, True)], [Label("b", 0.0, (5, DELIMITER), (0.5,) * 2, True)]]
    expected = [
        sum(naive_distance(embedding[i], image_embeds[image]) for i in token_ids) / len(token_ids)
        for image, token_ids in enumerate([ids, (5, DELIMITER)])
    ]
    scored = with_similarity(labels, image_embeds, embedding)
    assert [image[0].score for image in scored] == pytest.approx(expected, rel=1e-5)


def test_sim_of_an_image_without_labels_is_empty(embedding, image_embeds):
    assert with_similarity([[], []], image_embeds, embedding) == [[], []]


def test_an_unknown_ranking_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="ranking is 'best'; expected one of prob, ppl, sim, none"):
        find_ranking("best")
