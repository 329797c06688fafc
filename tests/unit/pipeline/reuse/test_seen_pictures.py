"""Which images of a shard look like an earlier one."""

from __future__ import annotations

import random

import pytest

from pipeline.reuse import seen_pictures
from pipeline.reuse.seen_pictures import SeenPictures


def signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def drawn_hashes(n_hashes: int) -> list[int]:
    """64 bits each; every other one is near one before."""
    draw = random.Random(3)
    hashes = [draw.getrandbits(64)]
    while len(hashes) < n_hashes:
        near = draw.choice(hashes)
        for place in draw.sample(range(64), draw.randrange(12)):
            near ^= 1 << place
        hashes.append(draw.choice([near, draw.getrandbits(64)]))
    return hashes


def find_slowly(hashes: list[int], distance: int) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for index, bits in enumerate(hashes):
        labelled = [before for before in range(index) if found[before] is None]
        nearest = min((((hashes[before] ^ bits).bit_count(), before) for before in labelled), default=None)
        found.append(None if nearest is None or nearest[0] > distance else (nearest[1], nearest[0]))
    return found


@pytest.mark.parametrize("distance", [0, 4, 11])
def test_an_image_is_marked_with_the_nearest_labelled_one_before_it(
    distance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_pictures, "_FIRST_ROOM", 4)
    hashes, seen = drawn_hashes(300), SeenPictures(distance)
    found = [seen.find_or_add(signed(bits), index) for index, bits in enumerate(hashes)]
    assert found == find_slowly(hashes, distance)
    assert None in found
    assert any(found)
    assert found != find_slowly(hashes, distance + 1)


def test_likeness_is_not_handed_on() -> None:
    seen = SeenPictures(2)
    assert [seen.find_or_add(bits, index) for index, bits in enumerate((0b0, 0b11, 0b1111, 0b111))] == [
        None,
        (0, 2),
        None,
        (2, 1),
    ]
