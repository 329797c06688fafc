"""Where a label ends: the tokens that close it.

Shape suffixes: M branches, E tokens that close a label, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Ending:
    """A set of tokens, each of which closes a label. That any of them comes next is one event.

    A vocabulary has many tokens that begin with a comma or a line break. Each of them says no more than that the label
    is over, so their probabilities add up.
    """

    def __init__(self, token_ids: Sequence[int], device: torch.device | str = "cpu") -> None:
        """
        Args:
            token_ids: the tokens that close a label, at least one.
        """
        if not token_ids:
            raise ValueError("no token closes a label; expected the ids of one or more")
        self.ids_E = torch.tensor(sorted(set(token_ids)), dtype=torch.long, device=device)

    def has(self, token_ids: Tensor) -> Tensor:
        """Whether each of these tokens closes a label; booleans of the same shape."""
        if len(self.ids_E) == 1:
            return token_ids == self.ids_E
        return torch.isin(token_ids, self.ids_E)

    def log_prob(self, log_probs: Tensor) -> Tensor:
        """Log probability that the label ends, from log probabilities of all tokens: [..., V] -> [...]."""
        return log_probs[..., self.ids_E].logsumexp(dim=-1)

    def next_tokens(self, logits_MV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The most probable of: the label ends, or any one other token follows.

        Overwrites the logits: another tensor of their size would cost more time than what is computed.

        Args:
            logits_MV: float32.

        Returns:
            Probabilities (float32), token ids (int64) and whether each ends its label, [M] each. The id of an end is
            that of the most probable token that closes, its probability that of all of them together.
        """
        highest_M1, ids_M1 = logits_MV.max(dim=-1, keepdim=True)
        weights_MV = logits_MV.sub_(highest_M1).exp_()
        total_M = weights_MV.sum(dim=-1)
        closing_ME = weights_MV[:, self.ids_E]
        end_M, ids_M = closing_ME.sum(dim=-1), ids_M1[:, 0]
        # The highest weight is 1.
        closes_M = self.has(ids_M) | (end_M > 1)
        probs_M = torch.where(closes_M, end_M, 1) / total_M
        return probs_M, torch.where(closes_M, self.ids_E[closing_ME.argmax(dim=-1)], ids_M), closes_M
