"""Sizes that a growing or shrinking number is rounded up to, so that few shapes stand for all."""

from __future__ import annotations

GROWTH = 2**0.25
ALIGNMENT = 16


def row_bucket(n_rows: int, limit: int) -> int:
    """The rows that a step of `n_rows` branches computes: at most a fifth more, or the next multiple of 16.

    There are at most four sizes a doubling. `limit`, the rows of a batch with all of its branches, is itself a size, so
    that the largest step is never padded.

    Raises ValueError where `n_rows` is not between 1 and `limit`.
    """
    _check(n_rows, limit)
    size = ALIGNMENT
    while size < n_rows:
        size += max(ALIGNMENT, int(size * (GROWTH - 1)) // ALIGNMENT * ALIGNMENT)
    return min(limit, size)


def doubling_bucket(n: int, limit: int) -> int:
    """The smallest power of two from `n` on, or `limit` where that is smaller.

    Raises ValueError where `n` is not between 1 and `limit`.
    """
    _check(n, limit)
    return min(limit, 1 << (n - 1).bit_length())


def _check(n: int, limit: int) -> None:
    if not 1 <= n <= limit:
        raise ValueError(f"{n} has no bucket; expected 1 to {limit}")
