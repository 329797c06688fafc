"""Scores of listed labels: the same as running the model again for every token of every label."""

from __future__ import annotations

import math

import pytest
import torch

from model.ending import Ending
from model.label_trie import ListedLabels
from model.nxtp.branches import NxtpBranches
from model.sampling import sample_branches
from model.scoring import score_labels
from tests.unit.model.oracle import next_token_probs

# Two orders of the same float32 sums, over up to five tokens.
LOG_PROB_REL = 3e-5
LABELS = [[11], [11, 12], [11, 12, 13], [40, 12, 13, 7], [40, 9], [5], [62, 62], [11, 12]]


@pytest.fixture
def decoder(recognizer, make_pixels):
    with torch.inference_mode():
        yield NxtpBranches(recognizer.module, recognizer.module.prefill(make_pixels(3)))


@pytest.fixture
def ending(recognizer):
    return Ending([recognizer.config.delimiter_id])


@torch.inference_mode()
def slow_score(recognizer, image_ND, label: list[int], closing: list[int]) -> float:
    """Log probability of one label and its end, token by token."""
    probs = [float(next_token_probs(recognizer.module, image_ND, label[:n])[token]) for n, token in enumerate(label)]
    end = next_token_probs(recognizer.module, image_ND, label)[closing].sum()
    return math.log(math.prod(probs) * float(end))


def assert_scores(recognizer, pixels, scores_BL, closing: list[int]) -> None:
    images = recognizer.module.encode_images(pixels)
    expected = [[slow_score(recognizer, image_ND, label, closing) for label in LABELS] for image_ND in images]
    assert scores_BL.numpy() == pytest.approx(torch.tensor(expected).numpy(), rel=LOG_PROB_REL)


@pytest.mark.parametrize("max_nodes", [1, 3, 100])
def test_scores_equal_scoring_each_label_alone(recognizer, make_pixels, decoder, ending, max_nodes):
    scores_BL = score_labels(decoder, ListedLabels(LABELS, max_nodes), ending)
    assert_scores(recognizer, make_pixels(3), scores_BL, [recognizer.config.delimiter_id])


def test_any_token_of_the_ending_ends_a_listed_label(recognizer, make_pixels, decoder):
    closing = [recognizer.config.delimiter_id, 20, 21]
    scores_BL = score_labels(decoder, ListedLabels(LABELS), Ending(closing))
    assert_scores(recognizer, make_pixels(3), scores_BL, closing)


def test_labels_that_were_sampled_get_the_probability_that_they_were_sampled_with(decoder, ending):
    images = sample_branches(decoder, ending, 20, 6).to_lists()
    for image, branches in enumerate(images):
        finished = [(list(ids[:-1]), probs) for ids, probs, is_finished in branches if is_finished and len(ids) > 1]
        assert finished
        scores_BL = score_labels(decoder, ListedLabels([ids for ids, _ in finished]), ending)
        expected = [math.log(math.prod(probs)) for _, probs in finished]
        assert scores_BL[image].tolist() == pytest.approx(expected, rel=LOG_PROB_REL)


def test_a_list_without_labels_has_no_scores(decoder, ending):
    assert score_labels(decoder, ListedLabels([]), ending).shape == (3, 0)


def test_scoring_leaves_the_prefix_as_it_is_for_sampling(decoder, ending):
    before = sample_branches(decoder, ending, 20, 6).to_lists()
    score_labels(decoder, ListedLabels(LABELS), ending)
    assert sample_branches(decoder, ending, 20, 6).to_lists() == before
