"""Lists of labels as tries of their tokens."""

from __future__ import annotations

import pytest

from model.label_trie import LabelTrie, ListedLabels


def paths(trie: LabelTrie) -> list[list[tuple[int, ...]]]:
    """The tokens from the root to each node, level by level."""
    levels, above = [], [()]
    for level in trie.levels:
        pairs = zip(level.token_ids_N.tolist(), level.parents_N.tolist(), strict=True)
        above = [(*above[parent], token) for token, parent in pairs]
        levels.append(above)
    return levels


def labels_of(trie: LabelTrie) -> dict[int, tuple[int, ...]]:
    """Each label's place in the list, and its tokens as the trie has them."""
    nodes = [path for level in paths(trie) for path in level]
    return {place: nodes[end] for place, end in zip(trie.places_L.tolist(), trie.ends_L.tolist(), strict=True)}


def test_labels_that_begin_alike_share_the_nodes_of_their_beginning():
    trie = LabelTrie.of([[1, 2], [1, 3], [1], [4]], [0, 1, 2, 3])
    assert paths(trie) == [[(1,), (4,)], [(1, 2), (1, 3)]]


def test_every_label_ends_at_the_node_of_its_tokens():
    labels = [[1, 2, 3], [1], [4, 2], [1, 2]]
    assert labels_of(LabelTrie.of(labels, [0, 1, 2, 3])) == dict(enumerate(map(tuple, labels)))


def test_tries_have_no_level_wider_than_allowed():
    labels = [[first, second] for first in range(5) for second in range(4)]
    listed = ListedLabels(labels, max_nodes=6)
    assert max(len(level.token_ids_N) for trie in listed.tries for level in trie.levels) <= 6


def test_all_tries_together_have_every_label_once():
    labels = [[3, 1], [2], [3], [2, 9, 9], [3, 1]]
    listed = ListedLabels(labels, max_nodes=2)
    assert len(listed.tries) == 3
    found = [item for trie in listed.tries for item in labels_of(trie).items()]
    assert sorted(found) == list(enumerate(map(tuple, labels)))


def test_a_label_without_tokens_is_refused_by_its_place():
    with pytest.raises(ValueError, match="label 1 of the list has no tokens; expected one or more"):
        ListedLabels([[1], []])


def test_a_width_of_no_nodes_is_refused():
    with pytest.raises(ValueError, match="max_nodes is 0; expected 1 or more"):
        ListedLabels([[1]], max_nodes=0)
