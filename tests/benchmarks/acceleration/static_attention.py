"""Attention of a step of branches whose shapes depend on sizes alone, never on which branches are live.

Shape suffixes: B images, A places of an image, M rows of a step (live branches and padding), S prefix tokens, T own
tokens, X prefix and own tokens and filling, H query heads, K key/value heads, G query heads a key/value head (H = K *
G), Q queries of an image (A * G), E head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows of scores of another width are not aligned, and matrix products over them take slower kernels.
_ALIGNED_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class RowPlaces:
    """Where each row lies among the images: image * n_places + place, or n_images * n_places for padding, int64 [M]."""

    place_M: Tensor
    n_images: int
    n_places: int

    def side_by_side(self, rows: Tensor) -> Tensor:
        """[M, ...] -> [B, A, ...], zeros where an image has fewer rows. Padding falls away."""
        n_places = self.n_images * self.n_places
        laid = rows.new_zeros(n_places + 1, *rows.shape[1:])
        laid[self.place_M] = rows
        return laid[:n_places].unflatten(0, (self.n_images, self.n_places))

    def packed(self, laid: Tensor) -> Tensor:
        """[B, A, ...] -> [M, ...]. Padding gets another row's values, which nothing reads."""
        return laid.flatten(0, 1)[self.place_M.clamp(max=self.n_images * self.n_places - 1)]


def attend_from_rows(
    query_MHE: Tensor,
    own_keys_MTKE: Tensor,
    own_values_MTKE: Tensor,
    seen_T: Tensor,
    prefix_keys_BKSE: Tensor,
    prefix_values_BKSE: Tensor,
    places: RowPlaces,
    bias_BS: Tensor | None = None,
) -> Tensor:
    """Attention of each row's one (scaled) query to its image's prefix and its own tokens, [M, H, E].

    As `model.branch_attention.attend_from_branches`, with own tokens that are hidden and with columns that fill up.

    Args:
        seen_T: which of the own tokens are there yet, booleans.
        bias_BS: is added to the scores of each image's prefix, where given.
    """
    n_rows, n_heads, width = query_MHE.shape
    n_kv_heads, n_prefix = prefix_keys_BKSE.shape[1:3]
    n_own = len(seen_T)
    query_MKGE = query_MHE.unflatten(1, (n_kv_heads, -1))
    own_scores_MKGT = query_MKGE @ own_keys_MTKE.permute(0, 2, 3, 1)
    own_scores_MKGT = own_scores_MKGT.masked_fill(~seen_T, -torch.inf)
    own_scores_MKGT = F.pad(own_scores_MKGT, (0, -(n_prefix + n_own) % _ALIGNED_COLUMNS), value=-torch.inf)

    query_BKQE = places.side_by_side(query_MKGE).transpose(1, 2).flatten(2, 3)
    own_scores_BKQT = places.side_by_side(own_scores_MKGT).transpose(1, 2).flatten(2, 3)
    scores_BKQS = query_BKQE @ prefix_keys_BKSE.transpose(2, 3)
    if bias_BS is not None:
        scores_BKQS = scores_BKQS + bias_BS[:, None, None]
    scores_BKQX = torch.cat((scores_BKQS, own_scores_BKQT), dim=-1)
    weights_BKQX = scores_BKQX.softmax(dim=-1, dtype=torch.float32).to(query_MHE.dtype)
    from_prefix_BKQE = weights_BKQX[..., :n_prefix] @ prefix_values_BKSE

    by_row = (places.n_places, n_heads // n_kv_heads)
    from_prefix_MKGE = places.packed(from_prefix_BKQE.unflatten(2, by_row).transpose(1, 2))
    own_weights_BKQT = weights_BKQX[..., n_prefix : n_prefix + n_own]
    own_weights_MKGT = places.packed(own_weights_BKQT.unflatten(2, by_row).transpose(1, 2))
    return (from_prefix_MKGE + own_weights_MKGT @ own_values_MTKE.transpose(1, 2)).reshape(n_rows, n_heads, width)
