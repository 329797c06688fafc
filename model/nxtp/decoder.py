"""The Llama decoder's two passes of one-shot sampling: prefill of the shared prefix, and a step of many branches.

Both run the modules of `LlamaForCausalLM` block by block, because the stock forward pass can neither stop the last
block at the answer position nor let branches read a prefix that is stored once per image.

Shape suffixes: B images, S prefix tokens, D decoder width, M live branches of all images together, H query heads, K
key/value heads, E head width, T tokens a branch has had so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, rotate_half

from model.branch_attention import BranchLayout, attend_from_branches


@dataclass(frozen=True, slots=True)
class PrefixPlaces:
    """Where the tokens of a prefix stand whose image tokens are merged, and how much attention they draw.

    positions_BS: the position of each token, float32; that of a merged token may be a fraction.
    bias_BS: what is added to the attention scores of each token's column, float32.
    next_position: the position of a label's first token.
    """

    positions_BS: Tensor
    bias_BS: Tensor
    next_position: int


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """Keys and values of image and prompt, one pair of [B, K, S, E] tensors a block, stored once per image.

    places: where the tokens stand; None where they stand side by side and weigh alike.
    """

    keys: list[Tensor]
    values: list[Tensor]
    places: PrefixPlaces | None = None

    @property
    def n_tokens(self) -> int:
        return self.keys[0].shape[2]

    @property
    def next_position(self) -> int:
        """The position of a label's first token."""
        return self.places.next_position if self.places else self.n_tokens


@dataclass(slots=True)
class BranchCache:
    """Keys and values of the live branches' own tokens, one pair of [M, K, T, E] tensors a block."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def append(self, block: int, key_MKE: Tensor, value_MKE: Tensor) -> tuple[Tensor, Tensor]:
        """Adds a token's key and value to every branch and returns all of the block's, [M, K, T, E] each."""
        key_MK1E, value_MK1E = key_MKE.unsqueeze(2), value_MKE.unsqueeze(2)
        if block == len(self.keys):
            self.keys.append(key_MK1E)
            self.values.append(value_MK1E)
        else:
            self.keys[block] = torch.cat((self.keys[block], key_MK1E), dim=2)
            self.values[block] = torch.cat((self.values[block], value_MK1E), dim=2)
        return self.keys[block], self.values[block]

    def keep(self, live_M: Tensor) -> None:
        """Drops every branch but those of the given indexes."""
        self.keys = [keys[live_M] for keys in self.keys]
        self.values = [values[live_M] for values in self.values]


def prefix_mask(n_image_tokens: int, n_tokens: int, device: torch.device | str) -> Tensor:
    """Boolean [S, S], True where row may attend to column: image tokens see one another, text is causal."""
    mask_SS = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=device).tril()
    mask_SS[:n_image_tokens, :n_image_tokens] = True
    return mask_SS


def prefill(
    decoder: LlamaForCausalLM, embeds_BSD: Tensor, n_image_tokens: int, places: PrefixPlaces | None = None
) -> tuple[Tensor, PrefixCache]:
    """Runs the prefix through the decoder.

    The last block computes keys and values of all tokens but everything else for the answer position alone: nothing
    reads the other rows.

    Args:
        places: where the tokens stand; default side by side.

    Returns:
        The normalised hidden state at the answer position, [B, D], and the prefix cache.
    """
    mask = prefix_mask(n_image_tokens, embeds_BSD.shape[1], embeds_BSD.device)
    last_mask = None
    if places is None:
        positions_BS = torch.arange(embeds_BSD.shape[1], device=embeds_BSD.device)[None]
    else:
        positions_BS = places.positions_BS
        last_mask = places.bias_BS.to(embeds_BSD.dtype)[:, None, None]
        mask = last_mask.masked_fill(~mask, -torch.inf)
    rotary = decoder.model.rotary_emb(embeds_BSD, positions_BS)
    cache = PrefixCache([], [], places)
    hidden_BSD = embeds_BSD
    for layer in decoder.model.layers:
        is_last = layer is decoder.model.layers[-1]
        query_BHSE, key_BKSE, value_BKSE = project(layer, hidden_BSD, rotary, 1 if is_last else None)
        cache.keys.append(key_BKSE.contiguous())
        cache.values.append(value_BKSE.contiguous())
        if is_last:
            hidden_BSD = hidden_BSD[:, -1:]
        attended = F.scaled_dot_product_attention(
            query_BHSE,
            key_BKSE,
            value_BKSE,
            attn_mask=last_mask if is_last else mask,
            scale=layer.self_attn.scaling,
            enable_gqa=query_BHSE.shape[1] != key_BKSE.shape[1],
        )
        hidden_BSD = finish_block(layer, hidden_BSD, attended.transpose(1, 2).flatten(2))
    return decoder.model.norm(hidden_BSD[:, -1]), cache


def step_branches(
    decoder: LlamaForCausalLM,
    token_ids_M: Tensor,
    position: int,
    layout: BranchLayout,
    prefix: PrefixCache,
    branches: BranchCache,
) -> Tensor:
    """Feeds every live branch its latest token and returns the hidden states that predict the next, [M, D].

    A branch attends to its image's prefix and to its own tokens, to nothing else. `position` is the token's place in
    the sequence image + prompt + label, the same for all branches.
    """
    hidden_MD = decoder.model.embed_tokens(token_ids_M)
    positions_11 = torch.full((1, 1), position, device=hidden_MD.device)
    rotary = decoder.model.rotary_emb(hidden_MD, positions_11)
    for block, layer in enumerate(decoder.model.layers):
        # One token a branch: the branches take the place of the batch.
        query_MH1E, key_MK1E, value_MK1E = project(layer, hidden_MD[:, None], rotary)
        own_keys_MKTE, own_values_MKTE = branches.append(block, key_MK1E[:, :, 0], value_MK1E[:, :, 0])
        attended_MHE = attend_from_branches(
            query_MH1E[:, :, 0] * layer.self_attn.scaling,
            own_keys_MKTE,
            own_values_MKTE,
            prefix.keys[block],
            prefix.values[block],
            layout,
            prefix_bias_BS=prefix.places.bias_BS if prefix.places else None,
        )
        hidden_MD = finish_block(layer, hidden_MD, attended_MHE.flatten(1))
    return decoder.model.norm(hidden_MD)


def project(
    layer: LlamaDecoderLayer, hidden_BSD: Tensor, rotary: tuple[Tensor, Tensor], n_queries: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries [B, H, S, E] (of the last `n_queries` tokens) and keys, and values [B, K, S, E], of one block."""
    attention = layer.self_attn
    normed_BSD = layer.input_layernorm(hidden_BSD)
    first_query = 0 if n_queries is None else normed_BSD.shape[1] - n_queries
    cos_1SE, sin_1SE = rotary

    def heads(projected_BSX: Tensor) -> Tensor:
        return projected_BSX.view(*projected_BSX.shape[:2], -1, attention.head_dim).transpose(1, 2)

    query = heads(attention.q_proj(normed_BSD[:, first_query:]))
    key, value = heads(attention.k_proj(normed_BSD)), heads(attention.v_proj(normed_BSD))
    query = _rotated(query, cos_1SE[:, first_query:], sin_1SE[:, first_query:])
    return query, _rotated(key, cos_1SE, sin_1SE), value


def _rotated(heads_BHSE: Tensor, cos_1SE: Tensor, sin_1SE: Tensor) -> Tensor:
    return heads_BHSE * cos_1SE[:, None] + rotate_half(heads_BHSE) * sin_1SE[:, None]


def finish_block(layer: LlamaDecoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    """Output projection, feed-forward and both residuals."""
    hidden = hidden + layer.self_attn.o_proj(attended)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))
