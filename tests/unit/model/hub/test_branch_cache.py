"""The cache of branches: the prefix stays one row an image, and lengths are those of prefix and own tokens together."""

from __future__ import annotations

import pytest
import torch
from transformers.cache_utils import (
    Cache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
)

from model.hub.branch_cache import BranchLayer, keep_branches, open_cache


def filled(layer: DynamicLayer, n_images: int = 2, n_tokens: int = 5) -> DynamicLayer:
    generator = torch.Generator().manual_seed(0)
    layer.update(*torch.randn(2, n_images, 1, n_tokens, 4, generator=generator))
    return layer


@pytest.fixture
def cache() -> Cache:
    """Three branches, two of them of the first image, over prefixes of five tokens."""
    return open_cache(Cache(layers=[filled(DynamicLayer())]), 5, torch.tensor([0, 0, 1]))


def test_the_prefix_is_not_copied():
    prefix = filled(DynamicLayer())
    (layer,) = open_cache(Cache(layers=[prefix]), 5, torch.tensor([0, 0, 0, 1, 1, 1])).layers
    assert layer.prefix_keys is prefix.keys
    assert layer.prefix_values is prefix.values


def test_an_update_returns_the_tokens_of_the_branches_alone(cache):
    token = torch.ones(3, 1, 1, 4)
    cache.update(token, token, 0)
    keys, _ = cache.update(2 * token, 2 * token, 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 2]] * 3


def test_the_length_is_that_of_prefix_and_own_tokens(cache):
    assert cache.get_seq_length() == 5
    cache.update(torch.ones(3, 1, 1, 4), torch.ones(3, 1, 1, 4), 0)
    assert cache.get_seq_length() == 6
    assert cache.get_mask_sizes(1, 0) == (7, 0)


def test_where_attention_has_a_window_the_length_is_that_of_the_whole_prefix():
    prefix = filled(DynamicSlidingWindowLayer(sliding_window=4))
    (layer,) = open_cache(Cache(layers=[prefix]), 5, torch.tensor([0, 1])).layers
    assert layer.prefix_keys.shape[2] == 3
    assert layer.get_seq_length() == 5


def test_branches_are_dropped_and_copied_by_place(cache):
    token = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 1, 4)
    cache.update(token, token, 0)
    keep_branches(cache, torch.tensor([2, 0, 2]))
    assert cache.layers[0].keys[:, 0, 0, 0].tolist() == [2, 0, 2]


def test_a_layer_that_is_not_as_long_as_the_prefix_stays_as_it_is():
    own, of_the_image = filled(DynamicLayer()), filled(DynamicLayer(), n_tokens=9)
    layers = open_cache(Cache(layers=[own, of_the_image]), 5, torch.tensor([0, 1])).layers
    assert isinstance(layers[0], BranchLayer)
    assert layers[1] is of_the_image


def test_a_layer_of_two_kinds_of_attention_is_refused():
    with pytest.raises(NotImplementedError, match="cannot share a LinearAttentionAndFullAttentionLayer"):
        open_cache(Cache(layers=[LinearAttentionAndFullAttentionLayer()]), 5, torch.tensor([0, 1]))


def test_an_empty_prefix_is_refused():
    with pytest.raises(ValueError, match="the layer is empty; expected one that the prefill filled"):
        BranchLayer(DynamicLayer(), 5)
