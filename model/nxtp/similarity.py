"""How far labels are from an image, by the vectors of tokens: what the ranking `sim` scores by.

Shape suffixes: B images, M branches of all images together, T tokens of a branch, V vocabulary, N image tokens, D width
of the decoder.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.ranking import FlatBranches


def branch_distances(branches: FlatBranches, image_embeds_BND: Tensor, embedding_VD: Tensor) -> np.ndarray:
    """Mean distance of each branch's tokens (what ends it included) to its image's tokens, float64 [M]."""
    distances_M = np.empty(len(branches), np.float64)
    is_token_MT = np.arange(branches.token_ids_MT.shape[1]) < branches.n_tokens_M[:, None]
    for image, image_ND in enumerate(image_embeds_BND):
        of_image = branches.image_M == image
        if not of_image.any():
            continue
        ids_MT, is_token = branches.token_ids_MT[of_image], is_token_MT[of_image]
        distinct = np.unique(ids_MT[is_token])
        ids = torch.tensor(distinct.tolist(), dtype=torch.long, device=embedding_VD.device)
        distances = np.array(token_distances(embedding_VD[ids], image_ND).tolist())
        distances_MT = np.zeros(ids_MT.shape)
        distances_MT[is_token] = distances[np.searchsorted(distinct, ids_MT[is_token])]
        # Added up token by token, as one does by hand: a sum by pairs is rounded otherwise.
        totals = distances_MT.cumsum(axis=1)[:, -1]
        distances_M[of_image] = totals / branches.n_tokens_M[of_image]
    return distances_M


def token_distances(tokens_TD: Tensor, image_ND: Tensor) -> Tensor:
    """Mean over image tokens of sqrt(2 - 2 cos) / 2, one value a token, [T] in float32, 0 (alike) to 1 (opposite)."""
    cosine_TN = F.normalize(tokens_TD.float(), dim=-1) @ F.normalize(image_ND.float(), dim=-1).T
    return ((2 - 2 * cosine_TN).clamp(min=0).sqrt() / 2).mean(dim=1)
