"""Names of a list as a tagger scores them: each by all of its spellings.

Shape suffixes: B images, L spellings, N names, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.branches import BranchDecoder
from model.ending import Ending
from model.images.views import count_tokens, cut_batches
from model.joined_views import join_scores
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


def score_views(
    tagger: Any, images: Sequence[Sequence[np.ndarray]], names: ListedNames, image_tokens: int = 0, view_tokens: int = 0
) -> np.ndarray:
    """Log probability of each name in the view of each image that scores it best, float32 [B, N].

    Args:
        tagger: a `model.tagger.Tagger`; its `list_names` made the names, for as many views as there are.
        images: the views of each, uint8 [H, W, 3]; all views of images that have equally many are scored at once.
        image_tokens, view_tokens: as of `model.images.views.count_tokens`.
    """
    n_views = [len(views) for views in images]
    places = cut_batches(n_views, max(1, sum(n_views)))
    scores = []
    for of_batch in places:
        prepared = tagger.prepare([images[image][view] for image, view in of_batch])
        n_tokens = count_tokens(n_views[of_batch[0][0]], image_tokens, view_tokens)
        (scores_VN,) = tagger.score_prepared(prepared, [names], image_tokens=n_tokens)
        scores.append(scores_VN.numpy())
    return join_scores(scores, places, len(images), names.n_names)


def no_scores(lists: Sequence[ListedNames]) -> tuple[Tensor, ...]:
    """The scores of each list where there are no images, [0, N]."""
    return tuple(torch.empty(0, of_list.n_names) for of_list in lists)
