"""What the images of a shard look like, so that only the first of those that look alike is labelled."""

from __future__ import annotations

import numpy as np

_FIRST_ROOM = 1024


class SeenPictures:
    """Hashes of the images of one shard that are labelled themselves, in the order in which they came.

    Which images are marked depends on nothing but the shard's images and their order: a marked one is not compared with
    later ones, so that nothing is chained, and whatever looks like it is never farther from what it is marked with than
    the distance. All hashes are looked at, which takes 1 ms an image in a shard of a million.

    Args:
        distance: in how many of their 64 bits the hashes of two images that look alike may differ.
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        self._hashes = np.empty(_FIRST_ROOM, np.int64)
        self._indexes: list[int] = []

    def find_or_add(self, phash: int, index: int) -> tuple[int, int] | None:
        """The index of the nearest image before, of several the first, and its distance. Without one, adds this image.

        Args:
            phash: signed.
            index: of the image in its shard.
        """
        n_seen = len(self._indexes)
        if n_seen:
            distances = np.bitwise_count((self._hashes[:n_seen] ^ np.int64(phash)).view(np.uint64))
            nearest = int(distances.argmin())
            if distances[nearest] <= self._distance:
                return self._indexes[nearest], int(distances[nearest])
        if n_seen == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[n_seen] = phash
        self._indexes.append(index)
        return None
