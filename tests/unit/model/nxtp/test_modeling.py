"""Image tokens: CLIP's encoder and the projector against the same network written out with plain matrix products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

# Two float32 implementations of one small network.
EMBEDS_ABS = 1e-4


def normalised(hidden_XW: Tensor, norm) -> Tensor:
    mean_X1 = hidden_XW.mean(dim=1, keepdim=True)
    variance_X1 = ((hidden_XW - mean_X1) ** 2).mean(dim=1, keepdim=True)
    return (hidden_XW - mean_X1) / (variance_X1 + 1e-5).sqrt() * norm.weight + norm.bias


def linear(hidden_XW: Tensor, layer) -> Tensor:
    return hidden_XW @ layer.weight.T + layer.bias


def attended(hidden_XW: Tensor, attention, n_heads: int) -> Tensor:
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query_XW, key_XW, value_XW = (linear(hidden_XW, projection) for projection in projections)
    heads = []
    for columns in torch.arange(query_XW.shape[1]).chunk(n_heads):
        scores_XX = query_XW[:, columns] @ key_XW[:, columns].T / len(columns) ** 0.5
        heads.append(scores_XX.softmax(dim=1) @ value_XW[:, columns])
    return linear(torch.cat(heads, dim=1), attention.out_proj)


def slow_image_tokens(model, image_CHW: Tensor) -> Tensor:
    """Projected tokens of one image's patches, row by row from the top left, [N, D]."""
    vision, config = model.vision_encoder, model.config.vision_config
    size, weight_WC = config.patch_size, vision.embeddings.patch_embedding.weight.flatten(1)
    starts = range(0, config.image_size, size)
    patches = [image_CHW[:, top : top + size, left : left + size].flatten() for top in starts for left in starts]
    tokens_XW = torch.stack([vision.embeddings.class_embedding, *(weight_WC @ patch for patch in patches)])
    hidden_XW = normalised(tokens_XW + vision.embeddings.position_embedding.weight, vision.pre_layrnorm)
    for layer in vision.encoder.layers:
        normed_XW = normalised(hidden_XW, layer.layer_norm1)
        hidden_XW = hidden_XW + attended(normed_XW, layer.self_attn, config.num_attention_heads)
        inner_XF = linear(normalised(hidden_XW, layer.layer_norm2), layer.mlp.fc1)
        hidden_XW = hidden_XW + linear(inner_XF * (1.702 * inner_XF).sigmoid(), layer.mlp.fc2)
    return normalised(hidden_XW, vision.post_layernorm)[1:] @ model.projector.weight.T


@pytest.fixture(scope="module")
def module(build_recognizer):
    """A model whose norms and biases are random too: at their initial 1 and 0 they could be left out unnoticed."""
    module = build_recognizer(image_size=56).module
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.vision_encoder.named_parameters():
            if "norm" in name or "layrnorm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


@torch.inference_mode()
def test_image_tokens_equal_the_network_written_out(module, make_pixels):
    pixels = make_pixels(2, image_size=56)
    expected = torch.stack([slow_image_tokens(module, image_CHW) for image_CHW in pixels])
    assert module.encode_images(pixels).numpy() == pytest.approx(expected.numpy(), abs=EMBEDS_ABS, rel=0)


@torch.inference_mode()
def test_there_is_one_image_token_a_patch(module, make_pixels):
    assert module.encode_images(make_pixels(2, image_size=56)).shape == (2, 16, 32)
