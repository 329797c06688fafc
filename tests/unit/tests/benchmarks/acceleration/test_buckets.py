"""Few sizes stand for all, and none is much larger than what it stands for."""

from __future__ import annotations

import pytest

from tests.benchmarks.acceleration.buckets import ALIGNMENT, doubling_bucket, row_bucket

LIMIT = 6400
SIZES = {n: row_bucket(n, LIMIT) for n in range(1, LIMIT + 1)}


def test_a_bucket_holds_its_rows_and_never_more_than_the_limit():
    assert all(n <= size <= LIMIT for n, size in SIZES.items())


def test_a_bucket_is_at_most_a_fifth_larger_or_the_next_multiple_of_16():
    assert all(size <= max(1.2 * n, n + ALIGNMENT) for n, size in SIZES.items())


def test_buckets_are_few():
    assert len(set(SIZES.values())) <= 40


def test_more_rows_never_have_a_smaller_bucket():
    sizes = list(SIZES.values())
    assert sizes == sorted(sizes)


def test_a_bucket_is_its_own_bucket():
    assert all(SIZES[size] == size for size in SIZES.values())


@pytest.mark.parametrize("limit", [1, 7, 60, 1280])
def test_the_limit_is_a_bucket(limit):
    assert row_bucket(limit, limit) == limit


def test_numbers_are_rounded_up_to_powers_of_two_below_the_limit():
    assert [doubling_bucket(n, 20) for n in (1, 2, 3, 5, 8, 9, 16, 17, 20)] == [1, 2, 4, 8, 8, 16, 16, 20, 20]


@pytest.mark.parametrize("bucket", [row_bucket, doubling_bucket])
@pytest.mark.parametrize("n", [0, 21])
def test_numbers_beyond_the_limit_have_no_bucket(bucket, n):
    with pytest.raises(ValueError, match=f"{n} has no bucket; expected 1 to 20"):
        bucket(n, 20)
