"""Attention of many branches to prefixes that are stored once an image.

Shape suffixes: B images, M live branches of all images together, A live branches of the image that has most, S prefix
tokens, H query heads, K key/value heads, G query heads a key/value head (H = K * G), R queries of an image (A * G),
E head width, T tokens a branch has had so far, X prefix and own tokens (S + T).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class BranchLayout:
    """Where each live branch belongs: its image and its slot, a number among the image's live branches.

    Linear layers run on the packed branches [M, ...]. Only attention to the prefix needs the branches of an image side
    by side, as [B, A, ...]; where every image has equally many that is the same memory, otherwise short images are
    padded.
    """

    image_M: Tensor
    slot_M: Tensor
    n_images: int
    n_slots: int

    @classmethod
    def of(cls, image_M: Tensor, n_images: int) -> BranchLayout:
        """The layout of branches sorted by image."""
        n_live_B = torch.bincount(image_M, minlength=n_images)
        start_B = n_live_B.cumsum(0) - n_live_B
        slot_M = torch.arange(len(image_M), device=image_M.device) - start_B[image_M]
        return cls(image_M, slot_M, n_images, int(n_live_B.max()))

    @property
    def is_full(self) -> bool:
        return len(self.image_M) == self.n_images * self.n_slots

    def side_by_side(self, packed: Tensor) -> Tensor:
        """[M, ...] -> [B, A, ...], zeros where an image has fewer branches."""
        shape = (self.n_images, self.n_slots, *packed.shape[1:])
        if self.is_full:
            return packed.reshape(shape)
        padded = packed.new_zeros(shape)
        padded[self.image_M, self.slot_M] = packed
        return padded

    def packed(self, padded: Tensor) -> Tensor:
        """[B, A, ...] -> [M, ...]."""
        if self.is_full:
            return padded.flatten(0, 1)
        return padded[self.image_M, self.slot_M]


def attend_from_branches(
    query_MHE: Tensor,
    own_keys_MKTE: Tensor,
    own_values_MKTE: Tensor,
    prefix_keys_BKSE: Tensor,
    prefix_values_BKSE: Tensor,
    layout: BranchLayout,
    mask_MX: Tensor | None = None,
    softcap: float | None = None,
    prefix_bias_BS: Tensor | None = None,
) -> Tensor:
    """Attention of each branch's one (scaled) query to its image's prefix and its own tokens, [M, H, E].

    This is attention under a block mask with the blocks that are masked out never computed: one product of all of an
    image's queries with its prefix, one small product of each query with its own tokens, one softmax (float32) over
    both.

    Args:
        mask_MX: what of prefix and own tokens a branch sees. A boolean mask is True there. A mask of floats is added to
            the scores. None where every branch sees all of it.
        softcap: scores are squeezed between this and its negative, where given.
        prefix_bias_BS: is added to the scores of each image's prefix, where given.
    """
    n_branches, n_heads, width = query_MHE.shape
    n_kv_heads, n_prefix = prefix_keys_BKSE.shape[1:3]
    n_groups = n_heads // n_kv_heads
    query_MKGE = query_MHE.view(n_branches, n_kv_heads, n_groups, width)
    own_scores_MKGT = query_MKGE @ own_keys_MKTE.transpose(2, 3)

    query_BAKGE = layout.side_by_side(query_MKGE)
    n_rows = layout.n_slots * n_groups
    query_BKRE = query_BAKGE.transpose(1, 2).reshape(layout.n_images, n_kv_heads, n_rows, width)
    scores_BKRS = query_BKRE @ prefix_keys_BKSE.transpose(2, 3)
    own_scores_BKRT = layout.side_by_side(own_scores_MKGT).transpose(1, 2).flatten(2, 3)

    scores_BKRX = torch.cat((scores_BKRS, own_scores_BKRT), dim=-1)
    if softcap is not None:
        scores_BKRX = torch.tanh(scores_BKRX / softcap) * softcap
    if prefix_bias_BS is not None:
        scores_BKRX[..., :n_prefix] += prefix_bias_BS[:, None, None]
    if mask_MX is not None:
        scores_BKRX = apply_mask(scores_BKRX, layout.side_by_side(mask_MX).repeat_interleave(n_groups, dim=1)[:, None])
    weights_BKRX = scores_BKRX.softmax(dim=-1, dtype=torch.float32).to(query_MHE.dtype)
    from_prefix_BKRE = weights_BKRX[..., :n_prefix] @ prefix_values_BKSE

    split = (layout.n_images, n_kv_heads, layout.n_slots, n_groups, -1)
    from_prefix_MKGE = layout.packed(from_prefix_BKRE.view(split).transpose(1, 2))
    own_weights_MKGT = layout.packed(weights_BKRX[..., n_prefix:].reshape(split).transpose(1, 2))
    return (from_prefix_MKGE + own_weights_MKGT @ own_values_MKTE).reshape(n_branches, n_heads, -1)


def apply_mask(scores: Tensor, mask: Tensor) -> Tensor:
    """Attention scores under a mask that broadcasts to them: a boolean one hides where False, another is added."""
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask
