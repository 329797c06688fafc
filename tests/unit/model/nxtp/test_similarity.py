"""Distances of tokens and labels to an image, on vectors made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from model.nxtp.similarity import branch_distances, token_distances
from model.ranking import FlatBranches

DELIMITER = 9


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


def test_a_branchs_distance_is_the_mean_over_its_tokens_with_the_delimiter(embedding, image_embeds):
    ids = [(3, 7, 3, DELIMITER), (5, DELIMITER), (0, DELIMITER)]
    (of_first, *of_second) = [(token_ids, (0.5,) * len(token_ids), True) for token_ids in ids]
    expected = [
        sum(naive_distance(embedding[i], image_embeds[image]) for i in token_ids) / len(token_ids)
        for image, token_ids in zip((0, 1, 1), ids, strict=True)
    ]
    branches = FlatBranches.of_lists([[of_first], of_second])
    assert branch_distances(branches, image_embeds, embedding).tolist() == pytest.approx(expected, rel=1e-5)


def test_images_without_branches_have_no_distances(embedding, image_embeds):
    assert branch_distances(FlatBranches.of_lists([[], []]), image_embeds, embedding).shape == (0,)
    of_second = FlatBranches.of_lists([[], [((5, DELIMITER), (0.5, 0.5), True)]])
    assert branch_distances(of_second, image_embeds, embedding).shape == (1,)
