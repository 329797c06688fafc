"""What users choose by name.

This module imports no torch: a command checks its options before it spends seconds on loading that, and what reads a
store never loads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """How an image's labels are scored and put in order."""

    name: str
    score_branches: Callable[[Any, Any, Any], Any]
    """Scores of branches from arrays, one value a branch: products of their tokens' probabilities, the delimiter's
    included, numbers of tokens, and probabilities of their first tokens."""
    bar_length: Callable[[float], float]
    """A score as the length of a bar, 0 to 1. The better score has the longer bar."""
    is_sorted: bool = True
    """Whether labels are sorted by score. Otherwise they stay in the order in which their branches were opened."""
    lowest_first: bool = False
    """Whether the lowest score is the best."""
    sums_alike: bool = False
    """Whether branches that spell the same label add up to its score. Otherwise the best, or first, of them is kept."""
    is_probability: bool = False
    """Whether scores are probabilities."""
    is_bounded: bool = True
    """Whether scores lie between 0 and 1. Otherwise they start at 1 and have no upper bound."""
    compares_with_image: bool = False
    """Whether scores are distances to the image tokens (model.nxtp.similarity) and not `score_branches`'."""


def _likelihoods(likelihoods: Any, n_tokens: Any, first_probs: Any) -> Any:
    return likelihoods


def _perplexities(likelihoods: Any, n_tokens: Any, first_probs: Any) -> Any:
    # Python's power and not numpy's, which differs by machine in the last bit.
    return [
        likelihood ** (-1 / n) if likelihood > 0 else math.inf
        for likelihood, n in zip(likelihoods.tolist(), n_tokens.tolist(), strict=True)
    ]


def _first_probs(likelihoods: Any, n_tokens: Any, first_probs: Any) -> Any:
    return first_probs


def _at_most_1(score: float) -> float:
    return min(score, 1.0)


_RANKINGS = (
    Ranking(name="prob", score_branches=_likelihoods, bar_length=_at_most_1, sums_alike=True, is_probability=True),
    Ranking(
        name="ppl",
        score_branches=_perplexities,
        bar_length=lambda score: 1 / score,
        lowest_first=True,
        is_bounded=False,
    ),
    Ranking(
        name="sim",
        score_branches=_first_probs,
        bar_length=lambda score: 1 - score,
        lowest_first=True,
        compares_with_image=True,
    ),
    Ranking(name="none", score_branches=_first_probs, bar_length=_at_most_1, is_sorted=False, is_probability=True),
)
RANKINGS: Mapping[str, Ranking] = MappingProxyType({ranking.name: ranking for ranking in _RANKINGS})
Sampling = Literal["one_shot", "greedy", "beam"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
# What vision-language models of the hub have of these. `sim` compares with image tokens in the space of words, which
# they do not share, and lists are written by NXTP's decoder alone.
_OF_THE_HUB = {"ranking": ("prob", "ppl", "none"), "sampling": ("one_shot",)}
# The method of `model.nxtp.token_merging`, as runs with fewer image tokens record it: its name and its version.
TOKEN_MERGING = "kcentre-merge-1"
# As torch names them.
DTYPES = ("float32", "bfloat16", "float16")


def check_hub_choice(what: str, name: str) -> None:
    """Raises ValueError where a vision-language model of the hub has no ranking, or sampling, of this name."""
    if name not in _OF_THE_HUB[what]:
        raise ValueError(f"{what} is {name!r}; a model of the hub has {', '.join(_OF_THE_HUB[what])}")


def check_hub_image_tokens(image_tokens: int, name: str = "image_tokens") -> None:
    """Raises ValueError where a vision-language model of the hub cannot read so many image tokens.

    Args:
        name: of what asks for them.
    """
    if image_tokens:
        raise ValueError(f"{name} is {image_tokens}; a model of the hub reads all of its image tokens: expected 0")


def check_merging(image_tokens: int, sampling: str, name: str = "image_tokens") -> None:
    """Raises ValueError where image tokens cannot be merged into this many for a sampling.

    Args:
        name: of what asks for them.
    """
    if image_tokens and sampling != "one_shot":
        raise ValueError(
            f"{name} is {image_tokens} and sampling {sampling}, which reads all image tokens; "
            f"expected {name} 0 or sampling one_shot"
        )


def check_view_tokens(view_tokens: int, image_tokens: int, most_views: int) -> None:
    """Raises ValueError where fewer tokens are asked for of views of images with several, and there is no such choice.

    Args:
        image_tokens: what is asked for of every view.
        most_views: views of an image, at most.
    """
    if view_tokens and image_tokens:
        raise ValueError(
            f"view_tokens is {view_tokens} and image_tokens {image_tokens}; expected one of them: view_tokens is of "
            "images with several squares, image_tokens of all"
        )
    if view_tokens and most_views == 1:
        raise ValueError(
            f"view_tokens is {view_tokens} and one square of each image is seen; expected views whole or above 1"
        )


def find_ranking(name: str) -> Ranking:
    """The ranking of this name. Raises ValueError where there is none."""
    if name not in RANKINGS:
        raise ValueError(f"ranking is {name!r}; expected one of {', '.join(RANKINGS)}")
    return RANKINGS[name]
