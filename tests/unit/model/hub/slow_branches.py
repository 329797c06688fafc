"""Branches of a vision-language model done slowly: each image alone, without padding, prefix or cache.

Every step is a full forward pass of the model. Its rows are the branches of one image, with the whole sequence in front
of each. Nothing of model.hub is used.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.sampling import Branches, SampledLabel
from tests.fixtures.recognizers.tiny_vlms import Inputs, TinyVlm, extend, merge

# The same float32 network computed in two orders. A wrong mask or position is off by far more.
PROBABILITY_ABS, PROBABILITY_REL = 1e-5, 1e-4


def next_log_probs(vlm: TinyVlm, image: Inputs, tails: Tensor) -> Tensor:
    """Log probabilities of the token behind an image's prompt and each of these beginnings, [rows, n] -> [rows, V]."""
    # PaliGemma's prompt is of type 0, what it generates is of type 1. To others 1 is a token of the image.
    generated_type = int(vlm.model.config.model_type == "paligemma")
    rows = extend(merge([image] * len(tails)), tails, generated_type)
    return vlm.model(**rows, use_cache=False).logits[:, -1].float().log_softmax(dim=-1)


@torch.inference_mode()
def slow_branches(
    vlm: TinyVlm, image: Inputs, closing: set[int], top_k: int, max_label_tokens: int
) -> list[SampledLabel]:
    """The branches of one image, in order of their first token's probability."""
    first = next_log_probs(vlm, image, torch.empty(1, 0, dtype=torch.long))[0].exp()
    probs, ids = first.topk(top_k)
    branches = [([token], [prob], token in closing) for token, prob in zip(ids.tolist(), probs.tolist(), strict=True)]
    for n_tokens in range(1, max_label_tokens + 1):
        live = [place for place, branch in enumerate(branches) if not branch[2]]
        if not live:
            break
        tails = torch.tensor([branches[place][0] for place in live])
        for place, log_probs in zip(live, next_log_probs(vlm, image, tails), strict=True):
            token, prob, closes = _next_token(log_probs.exp(), closing)
            if closes or n_tokens < max_label_tokens:
                tokens, known = branches[place][:2]
                branches[place] = ([*tokens, token], [*known, prob], closes)
    return [(tuple(tokens), tuple(probs), finished) for tokens, probs, finished in branches]


def slow_score(vlm: TinyVlm, image: Inputs, label: list[int], closing: set[int]) -> float:
    """Log probability of one label and its end behind an image's prompt, a forward pass a token."""
    steps = [next_log_probs(vlm, image, torch.tensor([label[:n]], dtype=torch.long))[0] for n in range(len(label) + 1)]
    tokens = sum(float(step[token]) for step, token in zip(steps, label, strict=False))
    return tokens + float(steps[-1][sorted(closing)].logsumexp(0))


def _next_token(probs: Tensor, closing: set[int]) -> tuple[int, float, bool]:
    listed = probs.tolist()
    end = sum(listed[token] for token in closing)
    best = max((token for token in range(len(listed)) if token not in closing), key=listed.__getitem__)
    if end > listed[best]:
        return max(closing, key=listed.__getitem__), end, True
    return best, listed[best], False


def assert_same_branches(branches: Branches, expected: list[list[SampledLabel]]) -> None:
    """The same tokens and ends, and probabilities that differ by no more than rounding."""
    got = branches.to_lists()
    assert [[(ids, finished) for ids, _, finished in image] for image in got] == [
        [(ids, finished) for ids, _, finished in image] for image in expected
    ]
    for got_image, expected_image in zip(got, expected, strict=True):
        for (_, probs, _), (_, expected_probs, _) in zip(got_image, expected_image, strict=True):
            assert probs == pytest.approx(expected_probs, abs=PROBABILITY_ABS, rel=PROBABILITY_REL)
