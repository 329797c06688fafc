"""One-shot sampling: the top-k labels of an image decoded in parallel from one prefill.

"Object recognition as next token prediction" (Yue et al., CVPR 2024), section 3.3: the k most probable first tokens
after the prompt open k branches. Each is then decoded greedily until its label ends: with the delimiter, or with one of
several tokens that close a label.

Shape suffixes: B images, K branches an image, M live branches of all images together, T tokens of a branch (the end
included), V vocabulary, N image tokens, D width of the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from model.branches import BranchDecoder
from model.ending import Ending
from model.ranking import FlatBranches, SampledLabel
from model.transfers import Results

MAX_TOP_K = 200


@dataclass(frozen=True, slots=True)
class Branches:
    """Sampled branches, in order of their first token's probability.

    token_ids_BKT, token_probs_BKT: ids (int64) and probabilities (float32), valid up to `n_tokens_BK`; zeros beyond.
    n_tokens_BK: tokens of each branch, its delimiter included.
    finished_BK: whether the branch produced the delimiter within the limit.
    """

    token_ids_BKT: Tensor
    token_probs_BKT: Tensor
    n_tokens_BK: Tensor
    finished_BK: Tensor

    def to_lists(self) -> list[list[SampledLabel]]:
        """For each image its branches: token ids, their probabilities, whether the branch finished."""
        return [
            [
                (tuple(ids[:n_tokens]), tuple(probs[:n_tokens]), finished)
                for ids, probs, n_tokens, finished in zip(*image, strict=True)
            ]
            for image in zip(*(column.tolist() for column in self.columns()), strict=True)
        ]

    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tensors in the order of the fields."""
        return self.token_ids_BKT, self.token_probs_BKT, self.n_tokens_BK, self.finished_BK


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """What sampling found for a batch: branches and image tokens [B, N, D], both on the device.

    Where the model has no image tokens that can be compared with words, there are none: [B, 0, 0].
    listed: of each list of names that was asked for, the log probability of every name, float32 [B, names], in the
    CPU's memory.
    """

    branches: Branches | list[list[SampledLabel]]
    image_embeds_BND: Tensor
    listed: tuple[Tensor, ...] = ()
    _results: Results | None = field(init=False, default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Here, where the device's thread is: its stream may go on with the next batch when the branches are asked for.
        if isinstance(self.branches, Branches):
            object.__setattr__(self, "_results", Results(self.branches.columns()))

    def flat(self) -> FlatBranches:
        """The branches one behind the other, in the CPU's memory.

        Another thread may ask for them while the device works on the next batch. It does not wait for that.
        """
        if self._results is None:
            return FlatBranches.of_lists(cast(list[list[SampledLabel]], self.branches))
        ids_BKT, probs_BKT, n_tokens_BK, finished_BK = (column.numpy() for column in self._results.fetch())
        n_images, n_branches, width = ids_BKT.shape
        return FlatBranches(
            n_images,
            np.repeat(np.arange(n_images), n_branches),
            ids_BKT.reshape(-1, width),
            probs_BKT.reshape(-1, width).astype(np.float64),
            n_tokens_BK.reshape(-1),
            finished_BK.reshape(-1),
        )


def top_k_tokens(logits_BV: Tensor, k: int, allowed_V: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Probabilities (softmax over the whole vocabulary) and ids of the k most probable tokens, [B, k] each.

    In float32 whatever the logits' dtype: half-precision logits tie, and ties make the choice arbitrary.

    Args:
        allowed_V: the tokens to choose from, booleans; default all. Probabilities stay those among all tokens.
    """
    logits_BV = logits_BV.float()
    if allowed_V is None:
        top_BK, ids_BK = logits_BV.topk(k, dim=-1)
        highest_B1 = top_BK[:, :1]
    else:
        top_BK, ids_BK = logits_BV.masked_fill(~allowed_V, -torch.inf).topk(k, dim=-1)
        highest_B1 = logits_BV.amax(dim=-1, keepdim=True)
    total_B1 = (logits_BV - highest_B1).exp_().sum(dim=-1, keepdim=True)
    return (top_BK - highest_B1).exp() / total_B1, ids_BK


def sample_branches(
    decoder: BranchDecoder, ending: Ending, top_k: int, max_label_tokens: int, opens_V: Tensor | None = None
) -> Branches:
    """Decodes the top-k labels of every image over the shared prefix.

    Args:
        decoder: with the images' prefixes. The branches that it has open are forgotten.
        ending: what closes a label.
        top_k: branches an image, 1 to 200.
        max_label_tokens: a branch that has this many tokens and does not end with the next is unfinished.
        opens_V: the tokens that a label may begin with, booleans; default all.
    """
    check_top_k(top_k, decoder.first_logits_BV.shape[-1] if opens_V is None else int(opens_V.sum()))
    probs_BK, ids_BK = top_k_tokens(decoder.first_logits_BV, top_k, opens_V)
    n_images = len(ids_BK)
    n_branches = n_images * top_k

    token_ids = ids_BK.new_zeros(n_branches, max_label_tokens + 1)
    token_probs = probs_BK.new_zeros(n_branches, max_label_tokens + 1)
    n_tokens = ids_BK.new_ones(n_branches)
    token_ids[:, 0], token_probs[:, 0] = ids_BK.flatten(), probs_BK.flatten()
    finished = ending.has(token_ids[:, 0])

    live_M = torch.nonzero(~finished)[:, 0]
    decoder.open(live_M // top_k)
    for n_decoded in range(1, max_label_tokens + 1):
        if len(live_M) == 0:
            break
        next_probs_M, next_ids_M, closes_M = ending.next_tokens(decoder.step(token_ids[live_M, n_decoded - 1]))
        # At the limit only an end is still taken: another token would make the label too long.
        taken_M = closes_M if n_decoded == max_label_tokens else torch.ones_like(closes_M)
        token_ids[live_M, n_decoded] = torch.where(taken_M, next_ids_M, 0)
        token_probs[live_M, n_decoded] = torch.where(taken_M, next_probs_M, 0.0)
        n_tokens[live_M] += taken_M.long()
        finished[live_M] = closes_M
        open_M = torch.nonzero(~closes_M)[:, 0]
        decoder.keep(open_M)
        live_M = live_M[open_M]

    return Branches(
        token_ids.view(n_images, top_k, -1),
        token_probs.view(n_images, top_k, -1),
        n_tokens.view(n_images, top_k),
        finished.view(n_images, top_k),
    )


def check_top_k(top_k: int, vocab_size: int) -> None:
    """Raises ValueError unless top_k is between 1 and 200 (and not above the vocabulary)."""
    limit = min(MAX_TOP_K, vocab_size)
    if not 1 <= top_k <= limit:
        raise ValueError(f"top_k is {top_k}; expected 1 to {limit}")
