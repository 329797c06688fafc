"""A block of the CLIP encoder, for compilation, fused weights and float8.

Shape suffixes: B images, X tokens (class token and patches), W encoder width, H heads, E head width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from tests.benchmarks.acceleration.projections import MakeLinear, PlainLinear, Projections


class EncoderBlock(nn.Module):
    """Computes what a `CLIPEncoderLayer` does, with the same weights: [B, X, W] -> [B, X, W]."""

    def __init__(self, layer: CLIPEncoderLayer, *, fused: bool, make: MakeLinear = PlainLinear) -> None:
        super().__init__()
        attention = layer.self_attn
        self._n_heads = attention.num_heads
        self._qkv = Projections([attention.q_proj, attention.k_proj, attention.v_proj], fused=fused, make=make)
        self._out = make(attention.out_proj.weight, attention.out_proj.bias)
        self._up = make(layer.mlp.fc1.weight, layer.mlp.fc1.bias)
        self._down = make(layer.mlp.fc2.weight, layer.mlp.fc2.bias)
        self._activation = layer.mlp.activation_fn
        self._attention_norm, self._mlp_norm = layer.layer_norm1, layer.layer_norm2

    def forward(self, hidden_BXW: Tensor) -> Tensor:
        query_BHXE, key_BHXE, value_BHXE = (
            part.unflatten(-1, (self._n_heads, -1)).transpose(1, 2)
            for part in self._qkv(self._attention_norm(hidden_BXW))
        )
        attended_BHXE = F.scaled_dot_product_attention(query_BHXE, key_BHXE, value_BHXE)
        hidden_BXW = hidden_BXW + self._out(attended_BHXE.transpose(1, 2).flatten(2))
        return hidden_BXW + self._down(self._activation(self._up(self._mlp_norm(hidden_BXW))))
