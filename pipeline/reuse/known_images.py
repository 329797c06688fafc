"""Labelled images by the hash of their bytes: sorted arrays in mapped files, which are merged as they grow.

An image takes 24 bytes: 16 of its hash and 8 of its place. Files are read a page at a time, and the operating system
takes pages back where memory is short.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

# Rows of a part: the halves of hashes, and places.
_HIGH, _LOW, _PLACE = range(3)
_NOWHERE = np.uint64(2**64 - 1)
_INDEX_BITS = np.uint64(32)
# Images that wait in memory for a file, and that are merged at once: 24 MB.
_MOST_WAITING = 1_000_000
_HEX_DIGITS = 32
_NIBBLES = np.full(256, 255, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class KnownImages:
    """What is known at one moment.

    Attributes: `parts`, each uint64 [3, images] in the order of hashes; `n_shards`: only images of so many of the first
    shards count.
    """

    parts: tuple[np.ndarray, ...]
    n_shards: int

    def find(self, hashes: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Where images of these contents are, the first in the order of shards and of indexes.

        Args:
            hashes: of contents, 32 hex digits each; null finds nothing.

        Returns: shard and index of each, int64; -1 where there is none.
        """
        place = np.full(len(hashes), _NOWHERE)
        is_hash = hashes.is_valid().to_numpy(zero_copy_only=False)
        halves = split_hashes(hashes.drop_null())
        found = np.full(halves.shape[1], _NOWHERE)
        for part in self.parts:
            np.minimum(found, _find_in(part, halves), out=found)
        found[found >= (np.uint64(self.n_shards) << _INDEX_BITS)] = _NOWHERE
        place[is_hash] = found
        is_known = place != _NOWHERE
        shard = np.where(is_known, (place >> _INDEX_BITS).astype(np.int64), -1)
        index = np.where(is_known, (place & np.uint64(2**32 - 1)).astype(np.int64), -1)
        return shard, index


def _find_in(part: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """The first place of each hash in a part."""
    n_images = part.shape[1]
    place = np.full(halves.shape[1], _NOWHERE)
    left = np.arange(halves.shape[1])
    at = np.searchsorted(part[_HIGH], halves[0])
    # Hardly ever more than once: hashes with one half in common.
    while len(left):
        is_within = at < n_images
        left, at = left[is_within], at[is_within]
        is_same = part[_HIGH][at] == halves[0][left]
        left, at = left[is_same], at[is_same]
        is_found = part[_LOW][at] == halves[1][left]
        place[left[is_found]] = part[_PLACE][at[is_found]]
        left, at = left[~is_found], at[~is_found] + 1
    return place


def split_hashes(hashes: pa.Array) -> np.ndarray:
    """Hashes of contents, 32 hex digits each and none null, as uint64 [2, hashes]. Raises ValueError for others."""
    text = (
        b"".join(value.as_buffer() for value in hashes) if len(hashes) < 1000 else "".join(hashes.to_pylist()).encode()
    )
    if len(text) != _HEX_DIGITS * len(hashes):
        raise ValueError("a content hash does not have 32 digits")
    nibbles = _NIBBLES[np.frombuffer(text, np.uint8)].reshape(len(hashes), _HEX_DIGITS)
    if nibbles.max(initial=0) > 15:
        raise ValueError("a content hash has other than hex digits")
    return (nibbles[:, ::2] << 4 | nibbles[:, 1::2]).view(">u8").astype(np.uint64).T.copy()


class ImageIndex:
    """Images that are known, in temporary files without a name: a process that is killed leaves none behind.

    Args:
        most_waiting: how many images wait in memory before they are written; so many are merged at once.
    """

    def __init__(self, most_waiting: int = _MOST_WAITING) -> None:
        self._most = most_waiting
        self._waiting: list[np.ndarray] = []
        self._n_waiting = 0
        self._parts: list[np.ndarray] = []

    @property
    def n_images(self) -> int:
        """How many images it holds."""
        return self._n_waiting + sum(part.shape[1] for part in self._parts)

    @property
    def n_bytes(self) -> int:
        """Size of its files."""
        return sum(part.nbytes for part in self._parts)

    def add(self, hashes: pa.Array, shards: np.ndarray | int, indexes: np.ndarray) -> None:
        """Adds images.

        Args:
            hashes: of their contents, 32 hex digits each.
            shards: number of each one's shard, or that of all.
            indexes: of each in its shard.
        """
        rows = np.empty((3, len(hashes)), np.uint64)
        rows[: _LOW + 1] = split_hashes(hashes)
        rows[_PLACE] = (np.asarray(shards, np.uint64) << _INDEX_BITS) | np.asarray(indexes, np.uint64)
        self._waiting.append(rows)
        self._n_waiting += rows.shape[1]
        if self._n_waiting >= self._most:
            self._write_waiting()

    def known(self, n_shards: int) -> KnownImages:
        """What has been added by now, of so many of the first shards."""
        self._write_waiting()
        return KnownImages(tuple(self._parts), n_shards)

    def _write_waiting(self) -> None:
        if not self._n_waiting:
            return
        self._parts.append(_write([_sorted(self._waiting)], self._most))
        self._waiting, self._n_waiting = [], 0
        # Each part is less than half of the one before: there are few, and an image is written a few times.
        while len(self._parts) > 1 and 2 * self._parts[-1].shape[1] >= self._parts[-2].shape[1]:
            self._parts[-2:] = [_write(self._parts[-2:], self._most)]


def _write(parts: Sequence[np.ndarray], most: int) -> np.ndarray:
    """A part that is made of others, mapped from a file. No more than `most` of its images are in memory."""
    n_images, done = sum(part.shape[1] for part in parts), 0
    with tempfile.TemporaryFile(prefix="tagstream-reuse-") as file:
        for slices in _cut_alike(parts, most):
            rows = _sorted(slices)
            for number, row in enumerate(rows):
                file.seek(8 * (number * n_images + done))
                file.write(row.tobytes())
            done += rows.shape[1]
        file.flush()
        # The map outlives the file's name and its descriptor.
        return np.memmap(file, np.uint64, "r", shape=(3, n_images))


def _sorted(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The images of several parts in the order of hashes, those of one hash in the order of places."""
    rows = np.concatenate(parts, axis=1)
    return rows[:, np.lexsort((rows[_PLACE], rows[_LOW], rows[_HIGH]))]


def _cut_alike(parts: Sequence[np.ndarray], most: int) -> list[list[np.ndarray]]:
    """Parts in slices of the same hashes, about `most` images together."""
    n_slices = -(-sum(part.shape[1] for part in parts) // most)
    # Hashes are as good as random: equal steps hold about as many images each.
    limits = np.array([(step << 64) // n_slices for step in range(1, n_slices)], np.uint64)
    cuts = [[0, *np.searchsorted(part[_HIGH], limits).tolist(), part.shape[1]] for part in parts]
    return [
        [part[:, cut[number] : cut[number + 1]] for part, cut in zip(parts, cuts, strict=True)]
        for number in range(n_slices)
    ]
