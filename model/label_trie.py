"""Labels of a list as a trie of their tokens: labels that begin alike share the nodes of their beginning.

Shape suffixes: L labels, N nodes of one level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TrieLevel:
    """The nodes that are equally many tokens away from the root.

    token_ids_N: the token of each node.
    parents_N: the place of each node's parent in the level above. Zeros in the first level: the root is above it.
    """

    token_ids_N: Tensor
    parents_N: Tensor


@dataclass(frozen=True, slots=True)
class LabelTrie:
    """The trie of some of a list's labels.

    levels: the first tokens, the second ones, and so on.
    ends_L: the node where each label ends, counted over all levels.
    places_L: the place of each label in the list.
    """

    levels: tuple[TrieLevel, ...]
    ends_L: Tensor
    places_L: Tensor

    @classmethod
    def of(cls, labels: Sequence[Sequence[int]], places: Sequence[int], device: torch.device | str = "cpu") -> Self:
        """The trie of those labels of a list that are at these places."""
        nodes: list[dict[tuple[int, ...], int]] = []
        for place in places:
            for depth in range(len(labels[place])):
                if depth == len(nodes):
                    nodes.append({})
                nodes[depth].setdefault(tuple(labels[place][: depth + 1]), len(nodes[depth]))
        above: list[dict[tuple[int, ...], int]] = [{(): 0}, *nodes]
        levels = tuple(
            TrieLevel(
                torch.tensor([path[-1] for path in level], device=device),
                torch.tensor([parents[path[:-1]] for path in level], device=device),
            )
            for parents, level in zip(above, nodes, strict=False)
        )
        flat = {path: node for node, path in enumerate(path for level in nodes for path in level)}
        ends = [flat[tuple(labels[place])] for place in places]
        return cls(levels, torch.tensor(ends, device=device), torch.tensor(places, device=device))


class ListedLabels:
    """The labels of a list, ready to be scored: tries that are small enough for the device.

    Attributes: `n_labels`, and `tries`, which have every label once.
    """

    def __init__(
        self, labels: Sequence[Sequence[int]], max_nodes: int = 1024, device: torch.device | str = "cpu"
    ) -> None:
        """
        Args:
            labels: token ids of each label as they follow the prompt, what ends a label not included.
            max_nodes: nodes that a level of a trie may have. Scoring holds logits of all of them for every image.
        """
        empty = [place for place, ids in enumerate(labels) if not ids]
        if empty:
            raise ValueError(f"label {empty[0]} of the list has no tokens; expected one or more")
        if max_nodes < 1:
            raise ValueError(f"max_nodes is {max_nodes}; expected 1 or more")
        self.n_labels = len(labels)
        # In the order of their tokens, labels that begin alike come into the same trie.
        order = sorted(range(len(labels)), key=lambda place: tuple(labels[place]))
        # A level has no more nodes than there are labels.
        self.tries = [
            LabelTrie.of(labels, order[start : start + max_nodes], device) for start in range(0, len(order), max_nodes)
        ]
