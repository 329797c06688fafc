"""Where labels end: the tokens that close them count as one event."""

from __future__ import annotations

import pytest
import torch

from model.ending import Ending

# Two orders of float32 sums.
SUM_REL = 1e-5


def logits_of(*probs: float):
    return torch.tensor([probs]).log()


def test_several_closing_tokens_together_outweigh_a_more_probable_token():
    probs, ids, closes = Ending([1, 2, 3]).next_tokens(logits_of(0.4, 0.1, 0.3, 0.2))
    assert (ids.tolist(), closes.tolist()) == ([2], [True])
    assert probs.tolist() == pytest.approx([0.6], rel=SUM_REL)


def test_a_token_more_probable_than_all_that_close_is_taken():
    probs, ids, closes = Ending([2, 3]).next_tokens(logits_of(0.45, 0.15, 0.2, 0.2))
    assert (ids.tolist(), closes.tolist()) == ([0], [False])
    assert probs.tolist() == pytest.approx([0.45], rel=SUM_REL)


def test_every_choice_equals_that_of_sums_over_the_whole_vocabulary():
    logits = torch.randn(500, 40, generator=torch.Generator().manual_seed(0)) * 2
    closing = torch.tensor([3, 7, 11, 12, 30])
    probs = logits.double().softmax(-1)
    end = probs[:, closing].sum(-1)
    other, other_ids = probs.index_fill(1, closing, 0).max(-1)
    got_probs, got_ids, got_closes = Ending(closing.tolist()).next_tokens(logits)
    expected_closes = end > other
    assert 0 < expected_closes.sum() < 500
    assert torch.equal(got_closes, expected_closes)
    assert torch.equal(got_ids[~got_closes], other_ids[~got_closes])
    assert torch.equal(got_ids[got_closes], closing[probs[:, closing].argmax(-1)][got_closes])
    assert got_probs.tolist() == pytest.approx(torch.maximum(end, other).tolist(), rel=SUM_REL)


def test_the_log_probability_of_the_end_is_that_of_the_sum():
    assert Ending([0, 2]).log_prob(logits_of(0.2, 0.7, 0.1)).exp().tolist() == pytest.approx([0.3], rel=SUM_REL)


def test_tokens_of_the_ending_close():
    assert Ending([5, 2]).has(torch.tensor([[2, 3], [5, 0]])).tolist() == [[True, False], [True, False]]


def test_an_ending_without_tokens_is_refused():
    with pytest.raises(ValueError, match="no token closes a label; expected the ids of one or more"):
        Ending([])
