"""A block of the Llama decoder for compilation, fused weights, float8 and steps of static shapes.

Shape suffixes: B images, N image tokens, P prompt tokens, S prefix tokens (N + P), D decoder width, M rows of a step
(live branches and padding), R rows of the own cache, H query heads, K key/value heads, G query heads a key/value head,
E head width, T own tokens a branch can have.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, rotate_half

from tests.benchmarks.acceleration.projections import MakeLinear, PlainLinear, Projections
from tests.benchmarks.acceleration.static_attention import RowPlaces, attend_from_rows

# Cosines and sines of positions, in the decoder's dtype: of a prefix [B or 1, S, E] each, of a step [1, E].
Rotary = tuple[Tensor, Tensor]


class StepInputs(NamedTuple):
    """What every block of a step reads. A tuple, because a compiler lets its numbers vary.

    row_M: the row of the own cache of each branch. Padding has the last row, which belongs to no branch.
    place_M: as of `RowPlaces`.
    token_1: the index of the token among the branches' own tokens, int64 [1]. It lies on the device, so that a recorded
        step may be replayed at another one. (Indexing by a tensor without dimensions would fetch its value.)
    seen_T: which own tokens there are, booleans: those up to `token_1`, of as many as are attended to.
    n_places: places of an image.
    bias_BS: what is added to the scores of each prefix token where image tokens are merged.
    """

    row_M: Tensor
    place_M: Tensor
    token_1: Tensor
    seen_T: Tensor
    n_places: int
    bias_BS: Tensor | None = None


class DecoderBlock(nn.Module):
    """Computes what a `LlamaDecoderLayer` does, with the same weights, over prefixes and over steps of branches."""

    def __init__(self, layer: LlamaDecoderLayer, *, is_last: bool, fused: bool, make: MakeLinear = PlainLinear) -> None:
        """
        Args:
            is_last: of a prefix the last block needs keys and values of all tokens, and the answer position alone
                beyond them.
        """
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self._width, self._scaling = attention.head_dim, attention.scaling
        self._is_last = is_last
        self._qkv = Projections([attention.q_proj, attention.k_proj, attention.v_proj], fused=fused, make=make)
        if is_last:
            self._query = make(attention.q_proj.weight, attention.q_proj.bias)
            self._key_value = Projections([attention.k_proj, attention.v_proj], fused=fused, make=make)
        self._out = make(attention.o_proj.weight, attention.o_proj.bias)
        self._gate_up = Projections([mlp.gate_proj, mlp.up_proj], fused=fused, make=make)
        self._down = make(mlp.down_proj.weight, mlp.down_proj.bias)
        self._attention_norm, self._mlp_norm = layer.input_layernorm, layer.post_attention_layernorm

    def prefill(
        self, hidden_BSD: Tensor, rotary: Rotary, n_image_tokens: int, bias_BS: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next hidden states ([B, S, D]; of the last block those of the answer position, [B, 1, D]), keys, values.

        Image tokens attend to image tokens without a mask, so that the fastest kernels can take them. Only the few
        tokens of the prompt need one.

        Args:
            bias_BS: what is added to the scores of each token where image tokens are merged, in the dtype of the hidden
                states.
        """
        rotary = (rotary[0][:, None], rotary[1][:, None])
        bias_B11S = None if bias_BS is None else bias_BS[:, None, None]
        normed_BSD = _normed(self._attention_norm, hidden_BSD)
        if self._is_last:
            query = self._heads(self._query(normed_BSD[:, -1:]))
            key, value = (self._heads(part) for part in self._key_value(normed_BSD))
            query, key = _rotated(query, (rotary[0][..., -1:, :], rotary[1][..., -1:, :])), _rotated(key, rotary)
            attended = self._attend(query, key, value, bias_B11S)
            hidden_BSD = hidden_BSD[:, -1:]
        else:
            query, key, value = (self._heads(part) for part in self._qkv(normed_BSD))
            query, key = _rotated(query, rotary), _rotated(key, rotary)
            image = slice(None, n_image_tokens)
            image_bias = None if bias_B11S is None else bias_B11S[..., image]
            of_image = self._attend(query[:, :, image], key[:, :, image], value[:, :, image], image_bias)
            text_query = query[:, :, n_image_tokens:]
            mask = _causal(text_query, key)
            if bias_B11S is not None:
                mask = bias_B11S.masked_fill(~mask, -torch.inf)
            attended = torch.cat((of_image, self._attend(text_query, key, value, mask)), dim=2)
        return self._finished(hidden_BSD, attended.transpose(1, 2).flatten(2)), key.contiguous(), value.contiguous()

    def step(
        self,
        hidden_MD: Tensor,
        rotary: Rotary,
        inputs: StepInputs,
        own: tuple[Tensor, Tensor],
        prefix: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Hidden states of the next block, [M, D], after writing keys and values of the rows' tokens into `own`.

        Args:
            own: keys and values of own tokens, [R, T, K, E] each.
            prefix: keys and values of the prefixes, [B, K, S, E] each.
        """
        query_MHE, key_MKE, value_MKE = (
            part.unflatten(-1, (-1, self._width)) for part in self._qkv(_normed(self._attention_norm, hidden_MD))
        )
        own_keys_RTKE, own_values_RTKE = own
        own_keys_RTKE[inputs.row_M, inputs.token_1] = _rotated(key_MKE, rotary)
        own_values_RTKE[inputs.row_M, inputs.token_1] = value_MKE
        own_of_rows = (tokens[:, : len(inputs.seen_T)][inputs.row_M] for tokens in own)
        attended_MHE = attend_from_rows(
            _rotated(query_MHE, rotary) * self._scaling,
            *own_of_rows,
            inputs.seen_T,
            *prefix,
            RowPlaces(inputs.place_M, len(prefix[0]), inputs.n_places),
            inputs.bias_BS,
        )
        return self._finished(hidden_MD, attended_MHE.flatten(1))

    def _heads(self, projected_BSX: Tensor) -> Tensor:
        return projected_BSX.unflatten(-1, (-1, self._width)).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        grouped = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self._scaling, enable_gqa=grouped
        )

    def _finished(self, hidden: Tensor, attended: Tensor) -> Tensor:
        hidden = hidden + self._out(attended)
        gate, up = self._gate_up(_normed(self._mlp_norm, hidden))
        return hidden + self._down(F.silu(gate) * up)


def _normed(norm: nn.Module, hidden: Tensor) -> Tensor:
    """RMSNorm by torch's own kernel: transformers' takes six."""
    return F.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)


def _rotated(heads: Tensor, rotary: Rotary) -> Tensor:
    cos, sin = rotary
    return heads * cos + rotate_half(heads) * sin


def _causal(query_BHPE: Tensor, key_BKSE: Tensor) -> Tensor:
    """Boolean [P, S]: the prompt's tokens, the last of the prefix, see what lies before them."""
    n_queries, n_keys = query_BHPE.shape[2], key_BKSE.shape[2]
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=query_BHPE.device).tril(n_keys - n_queries)
