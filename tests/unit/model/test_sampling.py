"""One-shot sampling: the same branches as scoring each alone, uncached, with stock modules."""

from __future__ import annotations

import math

import pytest
import torch

from model import Recognizer
from model.nxtp.branches import sample_one_shot
from model.sampling import Branches, top_k_tokens
from tests.unit.model.oracle import SlowBranch, assert_same_branches, fast_branches, slow_branches

# Batching changes the order of float32 sums, nothing else.
BATCH_REL = 1e-4


class TwinTokenizer:
    """Spells tokens 2n and 2n + 1 alike."""

    def decode(self, token_ids):
        return " ".join(f"t{token_id // 2}" for token_id in token_ids)


class OneWordTokenizer:
    """Spells every label alike."""

    def decode(self, token_ids):
        return "thing"


@torch.inference_mode()
def sample(recognizer: Recognizer, pixels, top_k: int, max_label_tokens: int = 16) -> Branches:
    return sample_one_shot(recognizer.module, recognizer.module.prefill(pixels), top_k, max_label_tokens)


def with_tokenizer(recognizer: Recognizer, tokenizer) -> Recognizer:
    return Recognizer(recognizer.module, recognizer.preprocessor, tokenizer)


def label_keys(labels):
    return [(label.text, label.token_ids) for label in labels]


def scores(labels):
    return [label.score for label in labels]


def product(branch: SlowBranch) -> float:
    return math.prod(branch.token_probs)


@pytest.mark.parametrize("n_images", [1, 3])
@pytest.mark.parametrize("top_k", [1, 7, 64])
def test_branches_equal_scoring_each_alone(recognizer, make_pixels, top_k, n_images):
    pixels = make_pixels(n_images)
    expected = slow_branches(recognizer.module, pixels, top_k, 16)
    assert_same_branches(fast_branches(sample(recognizer, pixels, top_k)), expected)


@pytest.mark.parametrize("n_images", [1, 3])
def test_two_hundred_branches_equal_scoring_each_alone(build_recognizer, make_pixels, n_images):
    recognizer, pixels = build_recognizer(vocab_size=210), make_pixels(n_images)
    expected = slow_branches(recognizer.module, pixels, 200, 4)
    assert_same_branches(fast_branches(sample(recognizer, pixels, 200, 4)), expected)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_grouped_query_attention_equals_scoring_each_alone(build_recognizer, make_pixels, n_kv_heads):
    recognizer, pixels = build_recognizer(n_heads=8, n_kv_heads=n_kv_heads), make_pixels(3)
    expected = slow_branches(recognizer.module, pixels, 10, 16)
    assert_same_branches(fast_branches(sample(recognizer, pixels, 10)), expected)


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_every_number_of_blocks_equals_scoring_each_alone(build_recognizer, make_pixels, n_blocks):
    recognizer, pixels = build_recognizer(n_blocks=n_blocks), make_pixels(3)
    expected = slow_branches(recognizer.module, pixels, 10, 16)
    assert_same_branches(fast_branches(sample(recognizer, pixels, 10)), expected)


def test_images_whose_branches_end_at_different_steps_equal_scoring_each_alone(recognizer, make_pixels):
    pixels = make_pixels(3)
    expected = slow_branches(recognizer.module, pixels, 20, 16)
    live_at_third_step = {sum(len(branch.token_ids) > 3 for branch in image) for image in expected}
    assert len(live_at_third_step) > 1, "the images should differ in their number of live branches"
    assert_same_branches(fast_branches(sample(recognizer, pixels, 20)), expected)


def test_branches_that_never_end_are_unfinished_at_the_limit(endless_recognizer, make_pixels):
    branches = sample(endless_recognizer, make_pixels(2), 5, max_label_tokens=3)
    assert not branches.finished_BK.any()
    assert branches.n_tokens_BK.tolist() == [[3] * 5] * 2


def test_branches_that_never_end_equal_scoring_each_alone(endless_recognizer, make_pixels):
    pixels = make_pixels(2)
    expected = slow_branches(endless_recognizer.module, pixels, 5, 3)
    assert_same_branches(fast_branches(sample(endless_recognizer, pixels, 5, 3)), expected)


def test_unfinished_branches_are_dropped_by_default(endless_recognizer, make_pixels):
    assert endless_recognizer.label_pixels(make_pixels(2), top_k=5, max_label_tokens=3) == [[], []]


def test_unfinished_branches_follow_the_finished_ones_on_request(recognizer, make_pixels):
    pixels = make_pixels(1)
    kept = recognizer.label_pixels(pixels, top_k=20, max_label_tokens=2, keep_unfinished=True)[0]
    finished = recognizer.label_pixels(pixels, top_k=20, max_label_tokens=2)[0]
    n_unfinished = int((~sample(recognizer, pixels, 20, 2).finished_BK).sum())
    assert 0 < n_unfinished < 20
    assert kept[: len(finished)] == finished
    assert [label.finished for label in kept[len(finished) :]] == [False] * n_unfinished


def test_unfinished_branches_leave_the_others_as_they_are(recognizer, make_pixels):
    pixels = make_pixels(3)
    unlimited = fast_branches(sample(recognizer, pixels, 20))
    limited = fast_branches(sample(recognizer, pixels, 20, 2))
    pairs = [pair for images in zip(limited, unlimited, strict=True) for pair in zip(*images, strict=True)]
    finished = [(short, full) for short, full in pairs if short.finished]
    assert 0 < len(finished) < len(pairs)
    assert_same_branches([[short for short, _ in finished]], [[full for _, full in finished]])


def test_a_label_of_exactly_the_limit_is_finished(recognizer, make_pixels):
    pixels = make_pixels(1)
    longest = max(slow_branches(recognizer.module, pixels, 20, 12)[0], key=lambda b: b.finished * len(b.token_ids))
    limit = len(longest.token_ids) - 1
    assert longest.token_ids in [b.token_ids for b in fast_branches(sample(recognizer, pixels, 20, limit))[0]]


def test_a_label_one_token_over_the_limit_is_unfinished(recognizer, make_pixels):
    pixels = make_pixels(1)
    longest = max(slow_branches(recognizer.module, pixels, 20, 12)[0], key=lambda b: b.finished * len(b.token_ids))
    limit = len(longest.token_ids) - 2
    unfinished = [b.token_ids for b in fast_branches(sample(recognizer, pixels, 20, limit))[0] if not b.finished]
    assert longest.token_ids[:limit] in unfinished


@pytest.mark.parametrize("max_label_tokens", [1, 2, 16])
def test_behind_the_tokens_of_a_branch_are_zeros(recognizer, make_pixels, max_label_tokens):
    branches = sample(recognizer, make_pixels(3), 20, max_label_tokens)
    is_behind_BKT = torch.arange(max_label_tokens + 1) >= branches.n_tokens_BK[..., None]
    assert is_behind_BKT.any()
    assert (branches.token_ids_BKT[is_behind_BKT] == 0).all()
    assert (branches.token_probs_BKT[is_behind_BKT] == 0).all()
    assert (branches.token_probs_BKT[~is_behind_BKT] > 0).all()


def test_a_delimiter_as_first_token_is_a_finished_branch_of_one_token(recognizer, make_pixels):
    branches = fast_branches(sample(recognizer, make_pixels(1), 64))[0]
    empty = [branch for branch in branches if branch.token_ids[0] == recognizer.config.delimiter_id]
    assert [(len(branch.token_ids), branch.finished) for branch in empty] == [(1, True)]


def test_empty_labels_are_dropped(recognizer, make_pixels):
    labels = recognizer.label_pixels(make_pixels(1), top_k=64, ranking="none")[0]
    assert len(labels) > 0
    assert all(label.text and label.token_ids[0] != recognizer.config.delimiter_id for label in labels)


def test_branches_that_spell_one_label_are_merged_with_summed_probability(recognizer, make_pixels):
    pixels, tokenizer = make_pixels(1), TwinTokenizer()
    expected: dict[str, float] = {}
    branches = [b for b in slow_branches(recognizer.module, pixels, 64, 16)[0] if b.finished and len(b.token_ids) > 1]
    for branch in branches:
        text = tokenizer.decode(branch.token_ids[:-1])
        expected[text] = expected.get(text, 0) + product(branch)
    assert len(expected) < len(branches)
    labels = with_tokenizer(recognizer, tokenizer).label_pixels(pixels, top_k=64)[0]
    assert {label.text: label.score for label in labels} == pytest.approx(expected, rel=BATCH_REL)


def test_a_merged_label_has_the_tokens_of_its_most_probable_branch(recognizer, make_pixels):
    pixels = make_pixels(1)
    finished = [b for b in slow_branches(recognizer.module, pixels, 64, 16)[0] if b.finished and len(b.token_ids) > 1]
    (label,) = with_tokenizer(recognizer, OneWordTokenizer()).label_pixels(pixels, top_k=64)[0]
    assert list(label.token_ids) == max(finished, key=product).token_ids


def test_more_branches_than_distinct_labels_give_each_label_once(recognizer, make_pixels):
    labels = with_tokenizer(recognizer, OneWordTokenizer()).label_pixels(make_pixels(2), top_k=64)
    assert [[label.text for label in image] for image in labels] == [["thing"], ["thing"]]


@pytest.mark.parametrize("top_k", [0, -1, 201])
def test_top_k_outside_1_to_200_is_refused(build_recognizer, make_pixels, top_k):
    with pytest.raises(ValueError, match=rf"top_k is {top_k}; expected 1 to 200"):
        build_recognizer(vocab_size=260).label_pixels(make_pixels(1), top_k=top_k)


def test_top_k_above_the_vocabulary_is_refused(recognizer, make_pixels):
    with pytest.raises(ValueError, match="top_k is 65; expected 1 to 64"):
        recognizer.label_pixels(make_pixels(1), top_k=65)


@pytest.mark.parametrize("option", ["ranking", "sampling"])
def test_an_unknown_option_is_refused_by_name(recognizer, make_pixels, option):
    with pytest.raises(ValueError, match=f"{option} is 'best'; expected one of"):
        recognizer.label_pixels(make_pixels(1), **{option: "best"})


def test_a_limit_of_no_tokens_is_refused(recognizer, make_pixels):
    with pytest.raises(ValueError, match="max_label_tokens is 0; expected 1 or more"):
        recognizer.label_pixels(make_pixels(1), max_label_tokens=0)


@pytest.mark.parametrize("ranking", ["prob", "ppl", "sim", "none"])
def test_batching_does_not_change_labels(recognizer, make_pixels, ranking):
    pixels = make_pixels(3)
    together = recognizer.label_pixels(pixels, top_k=20, ranking=ranking)
    for image, labels in zip(pixels, together, strict=True):
        alone = recognizer.label_pixels(image[None], top_k=20, ranking=ranking)[0]
        assert label_keys(alone) == label_keys(labels)
        assert scores(alone) == pytest.approx(scores(labels), rel=BATCH_REL)


def test_batch_order_does_not_change_labels(recognizer, make_pixels):
    pixels = make_pixels(3)
    forwards = recognizer.label_pixels(pixels, top_k=20)
    backwards = recognizer.label_pixels(pixels.flip(0), top_k=20)[::-1]
    for labels, reordered in zip(forwards, backwards, strict=True):
        assert label_keys(labels) == label_keys(reordered)
        assert scores(labels) == pytest.approx(scores(reordered), rel=BATCH_REL)


def test_top_k_chooses_among_the_allowed_and_keeps_probabilities_among_all():
    logits_BV = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    probs_BK, ids_BK = top_k_tokens(logits_BV, 2, torch.tensor([False, True, False, True]))
    assert ids_BK.tolist() == [[1, 3]]
    assert probs_BK.tolist()[0] == pytest.approx(logits_BV.softmax(-1)[0, [1, 3]].tolist())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_probabilities(build_recognizer, make_pixels, dtype):
    recognizer = build_recognizer(dtype=dtype)
    labels = [label for image in recognizer.label_pixels(make_pixels(2), top_k=20) for label in image]
    assert len(labels) > 0
    assert all(0 < label.score <= 1 for label in labels)


def test_top_k_orders_logits_that_tie_in_half_precision():
    # Between 16 and 32 bfloat16 has a step of 1/8.
    logits_1V = 16 + torch.tensor([[0.01, 0.03, 0.0, 0.02]])
    assert logits_1V.bfloat16().unique().numel() == 1
    assert top_k_tokens(logits_1V, 4)[1].tolist() == [[1, 3, 0, 2]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_top_k_probabilities_of_half_precision_logits_are_float32(dtype):
    logits_BV = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    probs_BK, ids_BK = top_k_tokens(logits_BV, 5)
    expected = logits_BV.double().softmax(dim=-1).gather(1, ids_BK)
    assert probs_BK.dtype == torch.float32
    # float32 keeps 7 digits; half precision would be off by 1e-3.
    assert probs_BK.double().numpy() == pytest.approx(expected.numpy(), rel=1e-6)
