"""From the sampled branches of a batch to ranked labels, as columns: a job labels faster than Python makes objects.

The value that each ranking (model.choices) reports as `Label.score`:

- `prob`: product of the branch's token probabilities, its delimiter's included, summed over branches that spell the
  same label; highest first.
- `ppl`: perplexity, the inverse geometric mean of the token probabilities; lowest first.
- `sim`: mean distance sqrt(2 - 2 cos) / 2 between the label's token embeddings and the image tokens; lowest first.
- `none`: branches in the order they were opened; the score is the first token's probability.

Shape suffixes: B images, M branches of all images together, T tokens of a branch, V branches that are labels, G groups
of branches that are one label, L ranked labels of all images together.

This module imports no torch: what builds rows of labels does not have to load it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from model.choices import Ranking

# A corpus repeats its labels: most are decoded from the cache.
_SPELLED_KEPT = 1 << 17
_WIDTH_STEP = 4
# Token ids with what ends the label, their probabilities, whether its end was reached.
SampledLabel = tuple[tuple[int, ...], tuple[float, ...], bool]


@dataclass(frozen=True, slots=True)
class Label:
    """One label of one image.

    text: the label. score: the ranking's value. token_ids, token_probs: the branch's tokens and their probabilities,
    the delimiter's included; of the most probable branch where several spell the label. finished: False for a branch
    cut off before it produced a delimiter. view: place of the view that the label is of, among those of its image.
    """

    text: str
    score: float
    token_ids: tuple[int, ...]
    token_probs: tuple[float, ...]
    finished: bool
    view: int = 0


@dataclass(frozen=True, slots=True)
class FlatBranches:
    """Sampled branches of a batch's images, one behind the other.

    n_images: B, those without branches included.
    image_M: the image of each branch, int64, ascending; within an image branches are in the order they were opened.
    token_ids_MT, token_probs_MT: ids (int64) and probabilities (float64), valid up to `n_tokens_M`; zeros beyond.
    n_tokens_M: tokens of each branch, its delimiter included, int64.
    finished_M: whether the branch produced the delimiter within the limit.
    """

    n_images: int
    image_M: np.ndarray
    token_ids_MT: np.ndarray
    token_probs_MT: np.ndarray
    n_tokens_M: np.ndarray
    finished_M: np.ndarray

    @classmethod
    def of_lists(cls, images: Sequence[Sequence[SampledLabel]]) -> Self:
        """Branches of each image as lists have them."""
        flat = [branch for branches in images for branch in branches]
        n_tokens_M = np.array([len(ids) for ids, _, _ in flat], np.int64)
        token_ids_MT = np.zeros((len(flat), max(n_tokens_M, default=1)), np.int64)
        token_probs_MT = np.zeros(token_ids_MT.shape)
        for row, (ids, probs, _) in enumerate(flat):
            token_ids_MT[row, : len(ids)], token_probs_MT[row, : len(ids)] = ids, probs
        image_M = np.repeat(np.arange(len(images)), np.array([len(branches) for branches in images], np.int64))
        finished_M = np.array([finished for _, _, finished in flat], bool)
        return cls(len(images), image_M, token_ids_MT, token_probs_MT, n_tokens_M, finished_M)

    def __len__(self) -> int:
        return len(self.image_M)

    def likelihoods(self) -> np.ndarray:
        """Product of each branch's token probabilities, float64 [M], multiplied from the first to the last."""
        likelihood_M = np.ones(len(self))
        for place, prob_M in enumerate(self.token_probs_MT.T):
            likelihood_M *= np.where(place < self.n_tokens_M, prob_M, 1.0)
        return likelihood_M


class Spelling:
    """What branches spell. Branches that are alike are decoded once."""

    def __init__(self, spell: Callable[[tuple[int, ...]], str], fold: Callable[[str], str] | None = None) -> None:
        """
        Args:
            spell: the label that tokens spell, without what ends it.
            fold: what labels that are one have in common; by default their whole text.
        """
        self._spell = spell
        self._texts = lru_cache(_SPELLED_KEPT)(self._spell_row)
        self._fold = lru_cache(_SPELLED_KEPT)(fold) if fold else None

    def texts(self, branches: FlatBranches, places_V: np.ndarray) -> list[str]:
        """What the branches at these places spell."""
        n_tokens_V = branches.n_tokens_M[places_V]
        # Few widths: each has entries of its own in the cache.
        width = -(-int(n_tokens_V.max(initial=1)) // _WIDTH_STEP) * _WIDTH_STEP
        ids_VT = branches.token_ids_MT[places_V, :width]
        # A row's bytes are looked up as they are. The number of tokens tells token 0 from none.
        rows = np.zeros((len(places_V), 1 + width), np.int32)
        rows[:, 0], rows[:, 1 : 1 + ids_VT.shape[1]] = n_tokens_V, ids_VT
        keys = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))
        return list(map(self._texts, keys[:, 0].tolist()))

    def folded(self, texts: list[str]) -> list[str]:
        """What of each label says which labels are one."""
        return list(map(self._fold, texts)) if self._fold else texts

    def _spell_row(self, row: bytes) -> str:
        n_tokens, *ids = np.frombuffer(row, np.int32).tolist()
        return self._spell(tuple(ids[:n_tokens]))


@dataclass(frozen=True, slots=True)
class RankedLabels:
    """Labels of a batch's images, best first, those of one image behind those of the one before.

    Empty labels are dropped, those that spell the same are merged, and unfinished branches are no labels.

    n_labels_B: labels of each image.
    texts: of each label. scores_L: the ranking's values, float64.
    branch_L: of the branches the one that stands for each label: its most probable, or its best, or its first.
    branches, branch_scores_M, spelling: what was ranked, the score of each branch alone, and what tells their texts.
    """

    n_labels_B: np.ndarray
    texts: list[str]
    scores_L: np.ndarray
    branch_L: np.ndarray
    branches: FlatBranches
    branch_scores_M: np.ndarray
    spelling: Spelling

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.n_labels_B)

    def first_token_probs(self) -> np.ndarray:
        """Probability of each label's first token, float64 [L]."""
        return self.branches.token_probs_MT[self.branch_L, 0]

    def n_tokens(self) -> np.ndarray:
        """Tokens of each label, its delimiter included, int64 [L]."""
        return self.branches.n_tokens_M[self.branch_L]

    def n_unfinished(self) -> np.ndarray:
        """Branches of each image that were cut off before they produced a delimiter, int64 [B]."""
        return np.bincount(self.branches.image_M[~self.branches.finished_M], minlength=len(self))

    def to_lists(self, keep_unfinished: bool = False) -> list[list[Label]]:
        """The labels of each image, best first.

        Args:
            keep_unfinished: unfinished branches follow the labels, in the order they were opened, unmerged.
        """
        images: list[list[Label]] = [[] for _ in range(len(self))]
        image_L = self.branches.image_M[self.branch_L].tolist()
        for image, text, score, branch in zip(
            image_L, self.texts, self.scores_L.tolist(), self.branch_L.tolist(), strict=True
        ):
            images[image].append(self._label(text, score, branch))
        if keep_unfinished:
            unfinished = np.flatnonzero(~self.branches.finished_M)
            texts = self.spelling.texts(self.branches, unfinished)
            for branch, text in zip(unfinished.tolist(), texts, strict=True):
                label = self._label(text, float(self.branch_scores_M[branch]), branch)
                images[int(self.branches.image_M[branch])].append(label)
        return images

    def _label(self, text: str, score: float, branch: int) -> Label:
        branches = self.branches
        n_tokens = int(branches.n_tokens_M[branch])
        ids, probs = branches.token_ids_MT[branch, :n_tokens], branches.token_probs_MT[branch, :n_tokens]
        return Label(text, score, tuple(ids.tolist()), tuple(probs.tolist()), bool(branches.finished_M[branch]))


def score_branches(branches: FlatBranches, ranking: Ranking) -> np.ndarray:
    """The score of each branch alone, float64 [M], by a ranking that does not compare with the image."""
    scores_M = ranking.score_branches(branches.likelihoods(), branches.n_tokens_M, branches.token_probs_MT[:, 0])
    return np.asarray(scores_M, np.float64)


def rank_branches(branches: FlatBranches, scores_M: np.ndarray, spelling: Spelling, ranking: Ranking) -> RankedLabels:
    """The labels of each image, best first; branches that spell one label are one.

    Labels of one score stay in the order in which their branches were opened.

    Args:
        scores_M: the score of each branch alone.
    """
    finished = np.flatnonzero(branches.finished_M)
    texts = spelling.texts(branches, finished)
    if "" in texts:
        finished = finished[np.fromiter(map(bool, texts), bool, len(texts))]
        texts = [text for text in texts if text]
    image_V, scores_V = branches.image_M[finished], scores_M[finished]
    group_V, first_G = _group(image_V, spelling.folded(texts))
    chosen_G, scores_G = _merge(branches.likelihoods()[finished], scores_V, group_V, first_G, ranking)
    image_G = image_V[first_G]
    if ranking.is_sorted:
        order_L = np.lexsort((scores_G if ranking.lowest_first else -scores_G, image_G))
    else:
        order_L = np.arange(len(first_G))
    chosen_L = chosen_G[order_L]
    return RankedLabels(
        n_labels_B=np.bincount(image_G, minlength=branches.n_images),
        texts=[texts[place] for place in chosen_L.tolist()],
        scores_L=scores_G[order_L],
        branch_L=finished[chosen_L],
        branches=branches,
        branch_scores_M=scores_M,
        spelling=spelling,
    )


def _group(image_V: np.ndarray, folded: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Groups of those that are one label of one image, in order of the first of each.

    Returns the group of each, [V], and the place of the first of each group, [G].
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys(folded))}
    number_V = np.fromiter(map(numbers.__getitem__, folded), np.int64, len(folded))
    _, first, group_V = np.unique(image_V * len(numbers) + number_V, return_index=True, return_inverse=True)
    order_G = first.argsort()
    rank_G = np.empty_like(order_G)
    rank_G[order_G] = np.arange(len(order_G))
    return rank_G[group_V], first[order_G]


def _merge(
    likelihood_V: np.ndarray, scores_V: np.ndarray, group_V: np.ndarray, first_G: np.ndarray, ranking: Ranking
) -> tuple[np.ndarray, np.ndarray]:
    """The place of the one that stands for each group, and the group's score."""
    if not ranking.is_sorted:
        return first_G, scores_V[first_G]
    if ranking.sums_alike:
        # Added up in the order of the branches.
        total_G = np.bincount(group_V, scores_V, minlength=len(first_G))
        return _best(likelihood_V, group_V, first_G), total_G.astype(np.float64)
    chosen_G = _best(-scores_V if ranking.lowest_first else scores_V, group_V, first_G)
    return chosen_G, scores_V[chosen_G]


def _best(value_V: np.ndarray, group_V: np.ndarray, first_G: np.ndarray) -> np.ndarray:
    """The place of the highest value of each group; of several the first."""
    highest_G = np.full(len(first_G), -np.inf)
    np.maximum.at(highest_G, group_V, value_V)
    place_V = np.flatnonzero(value_V == highest_G[group_V])[::-1]
    best_G = first_G.copy()
    # Where several are assigned to one group, the last assignment stays: that of the first of them.
    best_G[group_V[place_V]] = place_V
    return best_G
