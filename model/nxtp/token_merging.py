"""Fewer image tokens for the decoder: those that are alike become one.

The tokens to keep are chosen one after the other. The first is the one that is least like any other, and each further
one that which is least like those chosen before (greedy k-centre on the cosine, as in DivPrune, Alvar et al., CVPR
2025). Every other token joins the chosen one that it is most like. A merged token is the mean of its patches' tokens
and stands at the mean of their places. It draws attention for all of them: the log of their number is added to its
scores, as in token merging (Bolya et al., ICLR 2023).

`model.choices.TOKEN_MERGING` names this method in the records of runs. Another choice of tokens needs another name.

Shape suffixes: B images, P patches, one token each as the encoder gives them, N tokens that are kept, S prefix tokens
(N and the prompt's), D decoder width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.nxtp.decoder import PrefixPlaces


@dataclass(frozen=True, slots=True)
class MergedTokens:
    """An image's tokens, some of which stand for several patches.

    embeds_BND: the tokens in the order of the chosen patches, in the dtype of what was merged.
    positions_BN: the mean of each token's places among the patches, float32.
    sizes_BN: how many patches each token stands for, float32; those of an image add up to P.
    token_BP: the token that each patch belongs to, int64.
    """

    embeds_BND: Tensor
    positions_BN: Tensor
    sizes_BN: Tensor
    token_BP: Tensor

    def places(self, n_prompt_tokens: int) -> PrefixPlaces:
        """Where these tokens stand in front of a prompt, which stays where it is behind all patches."""
        n_images, n_patches = self.token_BP.shape
        end = n_patches + n_prompt_tokens
        prompt_B = torch.arange(n_patches, end, device=self.positions_BN.device).expand(n_images, -1)
        positions_BS = torch.cat((self.positions_BN, prompt_B.to(self.positions_BN.dtype)), dim=1)
        return PrefixPlaces(positions_BS, F.pad(self.sizes_BN.log(), (0, n_prompt_tokens)), end)


def merge_tokens(embeds_BPD: Tensor, n_kept: int) -> MergedTokens:
    """Merges each image's tokens into this many.

    Computes in float32 whatever the dtype of the tokens. Where tokens are equally (un)like, the lower place counts.

    Args:
        n_kept: N, 1 to P.
    """
    embeds_BPD, dtype = embeds_BPD.float(), embeds_BPD.dtype
    # Training's autocast would choose in half precision, by other kernels than labelling.
    with torch.autocast(embeds_BPD.device.type, enabled=False):
        with torch.no_grad():
            likeness_BPP = _likeness(embeds_BPD)
            chosen_BN = _choose_tokens(likeness_BPP, n_kept)
            token_BP = _rows(likeness_BPP, chosen_BN).argmax(dim=1)
            tokens_N1 = torch.arange(n_kept, device=token_BP.device)[:, None]
            joins_BNP = (token_BP[:, None] == tokens_N1).to(embeds_BPD.dtype)
            sizes_BN = joins_BNP.sum(dim=2)
            places_P = torch.arange(joins_BNP.shape[2], device=token_BP.device, dtype=embeds_BPD.dtype)
            positions_BN = joins_BNP @ places_P / sizes_BN
        # A product, because adding by index sums in any order on a GPU.
        embeds_BND = joins_BNP @ embeds_BPD / sizes_BN[:, :, None]
    return MergedTokens(embeds_BND.to(dtype), positions_BN, sizes_BN, token_BP)


def _likeness(embeds_BPD: Tensor) -> Tensor:
    """Cosine of each two tokens of an image, [B, P, P]; of a token with itself infinite, whatever was rounded."""
    unit_BPD = F.normalize(embeds_BPD, dim=-1)
    likeness_BPP = unit_BPD @ unit_BPD.transpose(1, 2)
    return likeness_BPP.masked_fill(_is_itself(likeness_BPP), torch.inf)


def _choose_tokens(likeness_BPP: Tensor, n_kept: int) -> Tensor:
    """Places of the tokens that are kept, in ascending order, [B, N]."""
    to_others_BPP = likeness_BPP.masked_fill(_is_itself(likeness_BPP), -torch.inf)
    place_B1 = to_others_BPP.amax(dim=2).argmin(dim=1, keepdim=True)
    chosen = [place_B1]
    # How like each token is to the chosen one that it is most like. Of a chosen one it is infinite.
    nearest_BP = _rows(likeness_BPP, place_B1)[:, 0]
    for _ in range(n_kept - 1):
        place_B1 = nearest_BP.argmin(dim=1, keepdim=True)
        chosen.append(place_B1)
        nearest_BP = torch.maximum(nearest_BP, _rows(likeness_BPP, place_B1)[:, 0])
    return torch.cat(chosen, dim=1).sort(dim=1).values


def _is_itself(likeness_BPP: Tensor) -> Tensor:
    return torch.eye(likeness_BPP.shape[1], dtype=torch.bool, device=likeness_BPP.device)


def _rows(likeness_BPP: Tensor, places_BN: Tensor) -> Tensor:
    """Rows of each image's matrix, [B, N, P]."""
    return likeness_BPP.gather(1, places_BN[:, :, None].expand(-1, -1, likeness_BPP.shape[2]))
