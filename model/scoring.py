"""Scores of a given list of labels: the probability that the model writes each of them.

Shape suffixes: B images, L labels, N nodes of one level of a trie, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.branches import BranchDecoder
from model.ending import Ending
from model.label_trie import LabelTrie, ListedLabels


def score_labels(decoder: BranchDecoder, labels: ListedLabels, ending: Ending) -> Tensor:
    """Log probability of each label and of its end behind the prompt, float32 [B, L], labels in the order of the list.

    Args:
        decoder: with the images' prefixes. The branches that it has open are forgotten.
        ending: what closes a label.
    """
    first_BV = decoder.first_logits_BV.log_softmax(dim=-1)
    scores_BL = first_BV.new_empty(len(first_BV), labels.n_labels)
    for trie in labels.tries:
        scores_BL[:, trie.places_L] = _score_trie(decoder, first_BV, trie, ending)
    return scores_BL


def _score_trie(decoder: BranchDecoder, first_BV: Tensor, trie: LabelTrie, ending: Ending) -> Tensor:
    """Log probabilities of one trie's labels, [B, L]. Every node of a level is a branch of every image."""
    images_B = torch.arange(len(first_BV), device=first_BV.device)
    reached_BN, following_BNV = first_BV.new_zeros(len(first_BV), 1), first_BV[:, None]
    ended = []
    for depth, level in enumerate(trie.levels):
        n_parents = reached_BN.shape[1]
        reached_BN = reached_BN[:, level.parents_N] + following_BNV[:, level.parents_N, level.token_ids_N]
        if depth == 0:
            decoder.open(images_B.repeat_interleave(len(level.token_ids_N)))
        else:
            decoder.keep((images_B[:, None] * n_parents + level.parents_N).flatten())
        logits_MV = decoder.step(level.token_ids_N.repeat(len(images_B)))
        following_BNV = logits_MV.log_softmax(dim=-1).view(*reached_BN.shape, -1)
        ended.append(reached_BN + ending.log_prob(following_BNV))
    return torch.cat(ended, dim=1)[:, trie.ends_L]
