"""From sampled branches to ranked labels.

The value that each ranking (model.choices) reports as `Label.score`:

- `prob`: product of the branch's token probabilities, its delimiter's included, summed over branches that spell the
  same label; highest first.
- `ppl`: perplexity, the inverse geometric mean of the token probabilities; lowest first.
- `sim`: mean distance sqrt(2 - 2 cos) / 2 between the label's token embeddings and the image tokens; lowest first.
- `none`: branches in the order they were opened; the score is the first token's probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from model.choices import Ranking


@dataclass(frozen=True, slots=True)
class Label:
    """One label of one image.

    text: the label. score: the ranking's value. token_ids, token_probs: the branch's tokens and their probabilities,
    the delimiter's included; of the most probable branch where several spell the label. finished: False for a branch
    cut off before it produced a delimiter.
    """

    text: str
    score: float
    token_ids: tuple[int, ...]
    token_probs: tuple[float, ...]
    finished: bool


def make_label(
    ids: tuple[int, ...],
    probs: tuple[float, ...],
    finished: bool,
    spell: Callable[[tuple[int, ...]], str],
    ranking: Ranking,
) -> Label:
    """The label of one branch; `sim` scores are filled in by `with_similarity`.

    Args:
        spell: the label that tokens spell, without what ends it.
    """
    return Label(spell(ids), ranking.score_branch(probs), ids, probs, finished)


def with_similarity(images: list[list[Label]], image_embeds_BND: Tensor, embedding_VD: Tensor) -> list[list[Label]]:
    """The labels with their `sim` scores: distance of their tokens (delimiter included) to the image tokens."""
    scored = []
    for labels, image_ND in zip(images, image_embeds_BND, strict=True):
        distinct = sorted({token_id for label in labels for token_id in label.token_ids})
        ids = torch.tensor(distinct, dtype=torch.long, device=embedding_VD.device)
        distances = dict(zip(distinct, token_distances(embedding_VD[ids], image_ND).tolist(), strict=True))
        scored.append(
            [replace(label, score=_mean(distances[token_id] for token_id in label.token_ids)) for label in labels]
        )
    return scored


def token_distances(tokens_TD: Tensor, image_ND: Tensor) -> Tensor:
    """Mean over image tokens of sqrt(2 - 2 cos) / 2, one value a token, [T] in float32, 0 (alike) to 1 (opposite)."""
    cosine_TN = F.normalize(tokens_TD.float(), dim=-1) @ F.normalize(image_ND.float(), dim=-1).T
    return ((2 - 2 * cosine_TN).clamp(min=0).sqrt() / 2).mean(dim=1)


def rank(
    labels: Iterable[Label], ranking: Ranking, keep_unfinished: bool = False, fold: Callable[[str], str] = str
) -> list[Label]:
    """One image's labels, best first: empty ones dropped, those that spell the same merged.

    Unfinished branches are no labels: they are dropped, or with `keep_unfinished` follow the finished ones unmerged.

    Args:
        fold: what labels that are one have in common; by default their whole text.
    """
    merged: dict[str, Label] = {}
    unfinished = []
    for label in labels:
        if not label.finished:
            unfinished.append(label)
        elif label.text:
            folded = fold(label.text)
            known = merged.get(folded)
            merged[folded] = label if known is None else _merge(known, label, ranking)
    ranked = list(merged.values())
    if ranking.is_sorted:
        sign = 1 if ranking.lowest_first else -1
        ranked.sort(key=lambda label: sign * label.score)
    return ranked + unfinished if keep_unfinished else ranked


def _merge(known: Label, other: Label, ranking: Ranking) -> Label:
    if not ranking.is_sorted:
        return known
    if ranking.sums_alike:
        best = max(known, other, key=lambda label: math.prod(label.token_probs))
        return replace(best, score=known.score + other.score)
    best_score = min if ranking.lowest_first else max
    return best_score(known, other, key=lambda label: label.score)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
