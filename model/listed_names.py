"""Names of a list as a tagger scores them: each by all of its spellings.

Shape suffixes: B images, L spellings, N names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.branches import BranchDecoder
from model.ending import Ending
from model.label_trie import ListedLabels
from model.scoring import score_labels


@dataclass(frozen=True, slots=True)
class ListedNames:
    """A list of names, ready to be scored.

    n_names: names of the list.
    labels: every spelling of every name.
    names_L: the place in the list of each spelling's name, int64.
    """

    n_names: int
    labels: ListedLabels
    names_L: Tensor

    @classmethod
    def of(cls, spellings: Sequence[Sequence[Sequence[int]]], max_nodes: int, device: torch.device) -> ListedNames:
        """A list from the token ids of each spelling of each name.

        Args:
            spellings: one or more a name; spellings of one name that have the same tokens count once.
            max_nodes: as of `ListedLabels`.
        """
        distinct = [list(dict.fromkeys(tuple(ids) for ids in of_name)) for of_name in spellings]
        names = [place for place, of_name in enumerate(distinct) for _ in of_name]
        labels = ListedLabels([ids for of_name in distinct for ids in of_name], max_nodes, device)
        return cls(len(distinct), labels, torch.tensor(names, device=device))


def score_names(decoder: BranchDecoder, names: ListedNames, ending: Ending) -> Tensor:
    """Log probability that the model writes each name, in any of its spellings, float32 [B, N].

    Args:
        decoder: with the images' prefixes. The branches that it has open are forgotten.
        ending: what closes a label.
    """
    scores_BL = score_labels(decoder, names.labels, ending)
    if names.labels.n_labels == names.n_names:
        return scores_BL
    names_BL = names.names_L.expand_as(scores_BL)
    highest_BN = scores_BL.new_full((len(scores_BL), names.n_names), -torch.inf)
    highest_BN = highest_BN.scatter_reduce(1, names_BL, scores_BL, "amax")
    # A name that cannot be written at all stays at minus infinity, which must not be subtracted from itself.
    shift_BN = highest_BN.clamp(min=torch.finfo(scores_BL.dtype).min)
    shares_BL = (scores_BL - shift_BN.gather(1, names_BL)).exp()
    return shift_BN + torch.zeros_like(highest_BN).scatter_add(1, names_BL, shares_BL).log()


def no_scores(lists: Sequence[ListedNames]) -> tuple[Tensor, ...]:
    """The scores of each list where there are no images, [0, N]."""
    return tuple(torch.empty(0, of_list.n_names) for of_list in lists)
