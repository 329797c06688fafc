"""Labels of images from those of their views, as columns.

A label that several views have is that of the view which scores it best, with its score, tokens and probabilities:
scores mean what they mean of an image with one view. Of equal scores the earlier view's counts. Where a ranking sorts
nothing, all views' first labels come first, then their second ones. A name of a list scores by the same rule.

Shape suffixes: B images, V views of a batch or, batch behind batch, of all, C their labels, D distinct labels of each
image, L labels that images keep, N names of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from model.choices import Ranking
from model.ranking import Label, RankedLabels

Places = Sequence[Sequence[tuple[int, int]]]
"""Image and view of each view of each batch, as `model.images.views.cut_batches` gives them."""


@dataclass(frozen=True, slots=True)
class JoinedLabels:
    """Labels of images, best first, those of one image behind those of the one before; columns as in `RankedLabels`.

    n_labels_B: labels of each image. texts, scores_L: of each label.
    view_L: place of the view that each label is of, among those of its image, int64.
    chosen_L: which of the labels of all views it is.
    ranked, places: labels of the views, batch by batch, and of which views they are.
    """

    n_labels_B: np.ndarray
    texts: list[str]
    scores_L: np.ndarray
    view_L: np.ndarray
    chosen_L: np.ndarray
    ranked: Sequence[RankedLabels]
    places: Places

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.n_labels_B)

    def first_token_probs(self) -> np.ndarray:
        """Probability of each label's first token, float64 [L]."""
        return _concatenated([of_batch.first_token_probs() for of_batch in self.ranked])[self.chosen_L]

    def n_tokens(self) -> np.ndarray:
        """Tokens of each label, its delimiter included, int64 [L]."""
        return _concatenated([of_batch.n_tokens() for of_batch in self.ranked]).astype(np.int64)[self.chosen_L]

    def n_unfinished(self) -> np.ndarray:
        """Branches of all views of each image that were cut off before they produced a delimiter, int64 [B]."""
        n_unfinished_B = np.zeros(len(self), np.int64)
        for of_batch, places in zip(self.ranked, self.places, strict=True):
            np.add.at(n_unfinished_B, [image for image, _ in places], of_batch.n_unfinished())
        return n_unfinished_B

    def to_lists(self, keep_unfinished: bool = False) -> list[list[Label]]:
        """The labels of each image, best first.

        Args:
            keep_unfinished: unfinished branches follow the labels, view behind view.
        """
        of_views = {
            place: labels
            for of_batch, places in zip(self.ranked, self.places, strict=True)
            for place, labels in zip(places, of_batch.to_lists(keep_unfinished), strict=True)
        }
        flat = [label for labels in of_views.values() for label in labels if label.finished]
        chosen = zip(self.chosen_L.tolist(), self.view_L.tolist(), strict=True)
        joined = iter([replace(flat[place], view=view) for place, view in chosen])
        images = [list(islice(joined, n_labels)) for n_labels in self.n_labels_B.tolist()]
        for (image, view), labels in sorted(of_views.items()):
            images[image] += [replace(label, view=view) for label in labels if not label.finished]
        return images


def join_views(
    ranked: Sequence[RankedLabels], places: Places, n_images: int, ranking: Ranking, most: int
) -> JoinedLabels:
    """Puts the labels of each image's views together.

    Args:
        ranked: labels of the views of each batch.
        places: of these views.
        most: labels that an image keeps.
    """
    n_labels_V = _concatenated([of_batch.n_labels_B for of_batch in ranked]).astype(np.int64)
    places_V2 = np.array([place for of_batch in places for place in of_batch], np.int64).reshape(-1, 2)
    image_C, view_C = np.repeat(places_V2, n_labels_V, axis=0).T
    rank_C, scores_C = _ranks(n_labels_V), _concatenated([of_batch.scores_L for of_batch in ranked])
    texts = [text for of_batch in ranked for text in of_batch.texts]
    folded = [text for of_batch in ranked for text in of_batch.spelling.folded(of_batch.texts)]
    if ranking.is_sorted:
        best_first_C = np.lexsort((rank_C, view_C, scores_C if ranking.lowest_first else -scores_C, image_C))
    else:
        best_first_C = np.lexsort((view_C, rank_C, image_C))
    best_D = best_first_C[_first_of_each(image_C[best_first_C], [folded[place] for place in best_first_C.tolist()])]
    n_found_B = np.bincount(image_C[best_D], minlength=n_images)
    chosen_L = best_D[_ranks(n_found_B) < most]
    return JoinedLabels(
        n_labels_B=np.minimum(n_found_B, most),
        texts=[texts[place] for place in chosen_L.tolist()],
        scores_L=scores_C[chosen_L],
        view_L=view_C[chosen_L],
        chosen_L=chosen_L,
        ranked=ranked,
        places=places,
    )


def join_scores(scores: Sequence[np.ndarray], places: Places, n_images: int, n_names: int) -> np.ndarray:
    """Scores of names for images, float32 [B, N]: what each name scores in the view that scores it best.

    Args:
        scores: of each batch, [V, N], the higher the better.
        places: of the views.
    """
    best_BN = np.full((n_images, n_names), -np.inf, np.float32)
    for scores_VN, of_batch in zip(scores, places, strict=True):
        np.maximum.at(best_BN, [image for image, _ in of_batch], np.asarray(scores_VN, np.float32))
    return best_BN


def _ranks(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... for each of these counts, one behind the other."""
    return np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)


def _first_of_each(image_C: np.ndarray, folded: list[str]) -> np.ndarray:
    """Where each label of each image stands first, ascending."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(folded))}
    number_C = np.fromiter(map(numbers.__getitem__, folded), np.int64, len(folded))
    _, first = np.unique(image_C * len(numbers) + number_C, return_index=True)
    return np.sort(first)


def _concatenated(columns: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(columns) if columns else np.empty(0)
