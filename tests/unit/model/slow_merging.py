"""Merging of image tokens done slowly, token by token in numpy, to compare `model.nxtp.token_merging` with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.unit.model.oracle import MergedImage


def slow_merge(image_PD: Tensor, n_kept: int) -> MergedImage:
    """One image's tokens merged into this many."""
    tokens = image_PD.double().numpy()
    members = join(tokens, choose(tokens, n_kept))
    return MergedImage(
        torch.tensor(np.stack([tokens[patches].mean(axis=0) for patches in members])).to(image_PD.dtype),
        [sum(patches) / len(patches) for patches in members],
        [len(patches) for patches in members],
        len(tokens),
    )


def choose(tokens: np.ndarray, n_kept: int) -> list[int]:
    """Places of the kept tokens in order: the loneliest, then again and again the farthest from those before it."""
    places = range(len(tokens))
    loneliness = [min(distance(tokens[one], tokens[two]) for two in places if two != one) for one in places]
    chosen = [loneliness.index(max(loneliness))]
    while len(chosen) < n_kept:
        rest = [place for place in places if place not in chosen]
        # The first of the largest is that of the lowest place.
        chosen.append(max(rest, key=lambda place: min(distance(tokens[place], tokens[kept]) for kept in chosen)))
    return sorted(chosen)


def join(tokens: np.ndarray, chosen: list[int]) -> list[list[int]]:
    """The places that each chosen token stands for: its own, and those of the tokens that are nearest to it."""
    members: list[list[int]] = [[] for _ in chosen]
    for place, token in enumerate(tokens):
        if place in chosen:
            nearest = chosen.index(place)
        else:
            nearest = min(range(len(chosen)), key=lambda number: distance(token, tokens[chosen[number]]))
        members[nearest].append(place)
    return members


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return 1 - float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))
