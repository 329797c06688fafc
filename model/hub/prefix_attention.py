"""Attention of branches to a prefix that is stored once an image, for any model that uses transformers' interface.

The function is registered with transformers by name. A model that is set to it calls it in every attention layer. While
branches take a step, it attends to their image's prefix and to their own tokens. At all other times it is the attention
that the model would have had anyway. The masks are transformers' own: the model's rule (causal, a window, chunks) for
one query a branch.

Shape suffixes: B images, M open branches of all images together, H query heads, K key/value heads, Q queries, S prefix
slots, T tokens a branch has had so far, X slots that are attended to, E head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from model.branch_attention import BranchLayout, apply_mask, attend_from_branches
from model.hub.branch_cache import BranchLayer

PREFIX_ATTENTION = "shared_prefix"
# Each changes the scores in a way of its own.
_UNKNOWN_TO_BRANCHES = ("s_aux", "position_bias", "cu_seqlens", "head_mask", "indices")


@dataclass(frozen=True, slots=True)
class _BranchStep:
    """One step of branches through a model.

    layers: the cache's layers. read: addresses of the keys that attention has asked for so far.
    """

    layers: list[Any]
    layout: BranchLayout
    read: set[int] = field(default_factory=set)

    def find_layer(self, key: Tensor) -> BranchLayer | None:
        """The layer whose own keys these are; None where they belong to the images, as in cross-attention.

        Layers are found by their keys: some models let a layer attend to the keys of another.
        """
        address = key.data_ptr()
        self.read.add(address)
        found = [layer for layer in self.layers if _address(layer) == address]
        if len(found) != 1:
            raise NotImplementedError(f"attention to keys of shape {tuple(key.shape)} that no layer of the cache has")
        return found[0] if isinstance(found[0], BranchLayer) else None

    def check_all_read(self) -> None:
        """Raises NotImplementedError where a layer stored keys and attended to them in another way."""
        n_unread = sum(isinstance(layer, BranchLayer) and _address(layer) not in self.read for layer in self.layers)
        if n_unread or not self.read:
            raise NotImplementedError(
                f"{n_unread} of {len(self.layers)} layers of the decoder do not use transformers' attention interface"
            )


_step: ContextVar[_BranchStep | None] = ContextVar("branch_step", default=None)


@contextmanager
def branch_step(cache: Cache, layout: BranchLayout) -> Iterator[None]:
    """While this is open, attention is that of branches: one query each, over `cache`.

    Raises NotImplementedError where the model's attention is of a kind that branches cannot share.
    """
    step = _BranchStep(cache.layers, layout)
    token = _step.set(step)
    try:
        yield
        step.check_all_read()
    finally:
        _step.reset(token)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' interface defines it: queries [rows, H, Q, E] -> [rows, Q, H, E], and no weights.

    During a branch step the rows are branches, and keys and values are their own, [M, K, T, E], or those of images,
    [B, K, S, E].
    """
    step = _step.get()
    if step is not None:
        return _attend_from_branches(step, module, query, key, value, attention_mask, scaling, softcap, options), None
    if softcap is not None:
        return _attend_with_softcap(query, key, value, attention_mask, scaling, softcap), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
    )


def _attend_from_branches(
    step: _BranchStep,
    module: nn.Module,
    query_MHQE: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    options: dict[str, Any],
) -> Tensor:
    unknown = [name for name in _UNKNOWN_TO_BRANCHES if options.get(name) is not None]
    if unknown or query_MHQE.shape[2] != 1:
        raise NotImplementedError(
            f"{type(module).__name__} attends with {query_MHQE.shape[2]} queries a branch and the options {unknown};"
            " expected one query and none of them"
        )
    layer = step.find_layer(key)
    n_hidden = 0
    if layer is None:
        prefix_keys, prefix_values = key, value
        # There are no own tokens.
        key, value = (of.new_empty(len(query_MHQE), of.shape[1], 0, of.shape[3]) for of in (key, value))
    else:
        prefix_keys, prefix_values = layer.prefix_keys, layer.prefix_values
        n_hidden = layer.n_prefix - prefix_keys.shape[2]
    mask_MX = None
    if mask is not None:
        mask_MX = _as_rows(mask, len(query_MHQE))[:, n_hidden:]
    query_MHE = query_MHQE[:, :, 0] * (query_MHQE.shape[-1] ** -0.5 if scaling is None else scaling)
    attended_MHE = attend_from_branches(
        query_MHE, key, value, prefix_keys, prefix_values, step.layout, mask_MX, softcap
    )
    return attended_MHE[:, None]


def _as_rows(mask: Tensor, n_branches: int) -> Tensor:
    """[M or 1, 1, 1, X] -> [M, X]."""
    if mask.ndim != 4 or mask.shape[1:3] != (1, 1) or mask.shape[0] not in (1, n_branches):
        raise NotImplementedError(f"a mask of shape {tuple(mask.shape)}; expected [{n_branches} or 1, 1, 1, slots]")
    return mask[:, 0, 0].expand(n_branches, -1)


def _attend_with_softcap(
    query_BHQE: Tensor, key_BKXE: Tensor, value_BKXE: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """Attention with capped scores, which torch's own has not."""
    n_groups = query_BHQE.shape[1] // key_BKXE.shape[1]
    scores_BHQX = query_BHQE @ repeat_kv(key_BKXE, n_groups).transpose(2, 3)
    scores_BHQX = scores_BHQX * (query_BHQE.shape[-1] ** -0.5 if scaling is None else scaling)
    scores_BHQX = torch.tanh(scores_BHQX / softcap) * softcap
    n_queries, n_slots = scores_BHQX.shape[-2:]
    if mask is None:
        # No mask stands for a causal one.
        mask = torch.ones(n_queries, n_slots, dtype=torch.bool, device=query_BHQE.device).tril(n_slots - n_queries)
    weights_BHQX = apply_mask(scores_BHQX, mask).softmax(dim=-1, dtype=torch.float32).to(query_BHQE.dtype)
    return (weights_BHQX @ repeat_kv(value_BKXE, n_groups)).transpose(1, 2).contiguous()


def _address(layer: Any) -> int | None:
    keys = getattr(layer, "keys", None)
    return None if keys is None else keys.data_ptr()


AttentionInterface.register(PREFIX_ATTENTION, attend)
AttentionMaskInterface.register(PREFIX_ATTENTION, sdpa_mask)
