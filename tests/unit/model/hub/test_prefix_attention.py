"""What attention of branches refuses: it must not be wrong in silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from model.branch_attention import BranchLayout
from model.hub.branch_cache import BranchLayer
from model.hub.branches import share_prefixes
from model.hub.prefix_attention import attend, branch_step
from tests.fixtures.recognizers.tiny_vlms import build_vlm, merge

N_BRANCHES, N_HEADS, WIDTH = 4, 2, 8


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def layer() -> BranchLayer:
    """Two branches of each of two images, over prefixes of five tokens; each branch has three own ones."""
    prefix = DynamicLayer()
    prefix.update(noise(2, N_HEADS, 5, WIDTH), noise(2, N_HEADS, 5, WIDTH))
    layer = BranchLayer(prefix, 5)
    layer.update(noise(N_BRANCHES, N_HEADS, 3, WIDTH), noise(N_BRANCHES, N_HEADS, 3, WIDTH))
    return layer


@pytest.fixture
def step(layer):
    return branch_step(Cache(layers=[layer]), BranchLayout.of(torch.tensor([0, 0, 1, 1]), 2))


def test_branches_attend_to_their_prefix_and_their_own_tokens(layer, step):
    query = noise(N_BRANCHES, N_HEADS, 1, WIDTH)
    with step:
        attended, _ = attend(nn.Identity(), query, layer.keys, layer.values, None)
    keys = torch.cat((layer.prefix_keys.repeat_interleave(2, 0), layer.keys), dim=2)
    values = torch.cat((layer.prefix_values.repeat_interleave(2, 0), layer.values), dim=2)
    expected = nn.functional.scaled_dot_product_attention(query, keys, values).transpose(1, 2)
    assert attended.numpy() == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize("option", ["s_aux", "position_bias"])
def test_an_option_that_changes_the_scores_is_refused_by_name(layer, step, option):
    query = noise(N_BRANCHES, N_HEADS, 1, WIDTH)
    with pytest.raises(NotImplementedError, match=f"the options \\['{option}'\\]"), step:
        attend(nn.Identity(), query, layer.keys, layer.values, None, **{option: torch.zeros(1)})


def test_several_queries_a_branch_are_refused(layer, step):
    query = noise(N_BRANCHES, N_HEADS, 2, WIDTH)
    with pytest.raises(NotImplementedError, match="2 queries a branch"), step:
        attend(nn.Identity(), query, layer.keys, layer.values, None)


def test_a_mask_of_another_shape_is_refused(layer, step):
    query = noise(N_BRANCHES, N_HEADS, 1, WIDTH)
    mask = torch.ones(2, 1, 1, 8, dtype=torch.bool)
    with (
        pytest.raises(NotImplementedError, match=r"a mask of shape \(2, 1, 1, 8\); expected \[4 or 1, 1, 1, slots\]"),
        step,
    ):
        attend(nn.Identity(), query, layer.keys, layer.values, mask)


def test_keys_that_no_layer_has_are_refused(layer, step):
    query = noise(N_BRANCHES, N_HEADS, 1, WIDTH)
    with pytest.raises(NotImplementedError, match="that no layer of the cache has"), step:
        attend(nn.Identity(), query, layer.keys.clone(), layer.values, None)


def test_a_layer_whose_keys_nothing_read_is_refused(step):
    message = "1 of 1 layers of the decoder do not use transformers' attention interface"
    with pytest.raises(NotImplementedError, match=message), step:
        pass


@pytest.mark.parametrize("architecture", ["llava", "paligemma2", "gemma3", "mllama"])
def test_outside_branch_steps_a_model_computes_as_before(architecture):
    vlm = build_vlm(architecture)
    inputs = merge([vlm.make_inputs(9, 0), vlm.make_inputs(4, 1)])
    with torch.inference_mode():
        before = vlm.model(**inputs).logits[:, -1]
        share_prefixes(vlm.model)
        after = vlm.model(**inputs).logits[:, -1]
    assert after.numpy() == pytest.approx(before.numpy(), abs=1e-4)
