"""The index of known images finds what was added, the first of each content, and nothing else."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reuse.known_images import ImageIndex, split_hashes
from schemas import content_hash

# So few contents that they repeat. The second half of some is that of others, and so is the first.
HASHES = [high * 16 + low * 16 for high in "0137f" for low in "026f"]


def find(index: ImageIndex, hashes: list[str | None], n_shards: int) -> list[tuple[int, int] | None]:
    shard, index_in_shard = index.known(n_shards).find(pa.array(hashes, pa.string()))
    pairs = zip(shard.tolist(), index_in_shard.tolist(), strict=True)
    return [None if pair == (-1, -1) else pair for pair in pairs]


@settings(max_examples=40)
@given(
    added=st.lists(st.tuples(st.integers(0, 5), st.lists(st.sampled_from(HASHES), max_size=8)), max_size=12),
    n_shards=st.integers(0, 6),
    most_waiting=st.integers(1, 20),
)
def test_it_finds_the_first_image_of_each_content_that_a_dictionary_finds(
    added: list[tuple[int, list[str]]], n_shards: int, most_waiting: int
) -> None:
    index, places = ImageIndex(most_waiting), dict[str, list[tuple[int, int]]]()
    for number, (shard, hashes) in enumerate(added):
        indexes = np.arange(len(hashes)) + 10 * number
        index.add(pa.array(hashes, pa.string()), shard, indexes)
        for digest, place in zip(hashes, indexes.tolist(), strict=True):
            places.setdefault(digest, []).append((shard, place))
    expected = []
    for digest in HASHES:
        first = min(places.get(digest, [(6, 0)]))
        expected.append(first if first[0] < n_shards else None)
    assert find(index, [*HASHES, None, "e" * 32], n_shards) == [*expected, None, None]


def test_many_parts_become_few_files_of_24_bytes_an_image() -> None:
    index = ImageIndex(most_waiting=50)
    hashes = [content_hash(bytes([number % 251, number // 251])) for number in range(5_000)]
    for shard in range(200):
        index.add(pa.array(hashes[shard * 25 : (shard + 1) * 25]), shard, np.arange(25))
        known = index.known(shard + 1)
    assert len(known.parts) < 10
    assert index.n_bytes == 24 * 5_000
    assert find(index, hashes, 200) == [(number // 25, number % 25) for number in range(5_000)]


def test_what_was_known_stays_known_when_more_is_added() -> None:
    index = ImageIndex(most_waiting=2)
    index.add(pa.array(HASHES[:3]), 0, np.arange(3))
    known = index.known(1)
    index.add(pa.array(HASHES[3:]), 1, np.arange(len(HASHES) - 3))
    index.known(2)
    del index
    assert known.find(pa.array(HASHES[:4]))[0].tolist() == [0, 0, 0, -1]


@pytest.mark.parametrize("text", ["0" * 31, "0" * 33, "g" * 32, "A" * 32])
def test_what_is_no_content_hash_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="content hash"):
        split_hashes(pa.array(["0" * 32, text]))
