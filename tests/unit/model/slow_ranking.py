"""The same ranking label by label, as objects: slow, and written apart from `model.ranking`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model.choices import Ranking
from model.nxtp.similarity import token_distances
from model.ranking import Label, SampledLabel


def _perplexity(probs: tuple[float, ...]) -> float:
    likelihood = math.prod(probs)
    return likelihood ** (-1 / len(probs)) if likelihood > 0 else math.inf


# `sim` is filled in by `with_similarity`.
_SCORES = {"prob": math.prod, "ppl": _perplexity, "sim": lambda probs: probs[0], "none": lambda probs: probs[0]}


def rank_slowly(
    images: list[list[SampledLabel]],
    ranking: Ranking,
    spell: Callable[[tuple[int, ...]], str],
    fold: Callable[[str], str] = str,
    vectors: tuple[Tensor, Tensor] | None = None,
) -> list[list[Label]]:
    """The labels of each image, best first, and behind them its unfinished branches.

    Args:
        vectors: for `sim`, those of the image tokens [B, N, D] and of the vocabulary [V, D].
    """
    labels = [[make_label(*branch, spell, ranking) for branch in branches] for branches in images]
    if vectors is not None:
        labels = with_similarity(labels, *vectors)
    return [rank(of_image, ranking, keep_unfinished=True, fold=fold) for of_image in labels]


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
    return Label(spell(ids), _SCORES[ranking.name](probs), ids, probs, finished)


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


def join_slowly(
    views: Sequence[Sequence[Label]], ranking: Ranking, most: int, fold: Callable[[str], str] = str
) -> list[Label]:
    """One image's labels from those of its views, and behind them the unfinished branches of all views."""
    found: dict[str, list[tuple[float, int, int, Label]]] = {}
    for view, labels in enumerate(views):
        for place, label in enumerate(label for label in labels if label.finished):
            own = replace(label, view=view)
            key = (label.score if ranking.lowest_first else -label.score, view, place, own)
            found.setdefault(fold(label.text), []).append(key if ranking.is_sorted else (place, view, 0, own))
    best = sorted((min(alike, key=lambda key: key[:3]) for alike in found.values()), key=lambda key: key[:3])
    unfinished = [
        replace(label, view=view) for view, labels in enumerate(views) for label in labels if not label.finished
    ]
    return [label for *_, label in best][:most] + unfinished
