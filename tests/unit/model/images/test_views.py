"""Squares of an image: how many, where they lie, and how they share branches and batches of the device."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.images.views import count_squares, cut_batches, is_nearly_square, most_squares, place_squares, share_branches

SIDES = st.integers(1, 5000)


def widest_gap(places: list[int], size: int) -> int:
    """Pixels between two neighbouring squares, at most; below 0 where they overlap."""
    return max((later - (former + size) for former, later in pairwise(places)), default=0)


def fewest_squares(width: int, height: int) -> int:
    """The plain reading of the rule: try 2, 3, ... squares from end to end until no gap is over a twentieth of one."""
    long, short = max(width, height), min(width, height)
    if 4 * long < 5 * short:
        return 1
    n = 2
    # Twenty times the pixels, so that the places are exact: gap = (long - n * short) / (n - 1).
    while 20 * (long - n * short) > short * (n - 1):
        n += 1
    return n


@pytest.mark.parametrize(("views", "most"), [("centre", 1), ("whole", 4), (1, 1), (3, 3), (16, 16)])
def test_a_setting_says_how_many_squares_there_are_at_most(views: str | int, most: int) -> None:
    assert most_squares(views) == most


@pytest.mark.parametrize("views", ["center", "3", "", 0, -1, 17, True, 2.0])
def test_any_other_setting_is_refused_with_what_was_expected(views: object) -> None:
    with pytest.raises(ValueError, match="expected centre, whole or a whole number, 1 to 16"):
        most_squares(views)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (100, 100, 1),
        (124, 100, 1),
        (125, 100, 2),
        (640, 480, 2),
        (427, 640, 2),
        (1920, 1080, 2),
        (1080, 1920, 2),
        (1000, 499, 2),
        (205, 100, 2),
        (206, 100, 3),
        (310, 100, 3),
        (311, 100, 4),
        (9000, 100, 4),
    ],
)
def test_nearly_square_pictures_have_one_and_longer_ones_more(width: int, height: int, expected: int) -> None:
    assert count_squares(width, height, 4) == expected


@given(sides=st.lists(st.tuples(SIDES, SIDES), min_size=1))
def test_images_that_have_one_square_are_told_at_once(sides: list[tuple[int, int]]) -> None:
    widths, heights = np.array(sides, np.int32).T
    assert is_nearly_square(widths, heights).tolist() == [count_squares(*size, 4) == 1 for size in sides]


@settings(max_examples=300)
@given(width=SIDES, height=SIDES)
def test_squares_are_the_fewest_that_leave_no_gap_of_more_than_a_twentieth(width: int, height: int) -> None:
    assert count_squares(width, height, 10**6) == fewest_squares(width, height)


@pytest.mark.parametrize("wrong", [lambda ratio: round(ratio), lambda ratio: int(ratio) + 1, lambda ratio: 2])
def test_the_oracle_tells_other_rules_apart(wrong: Callable[[float], int]) -> None:
    pictures = [(width, 100) for width in range(125, 900, 5)]
    assert any(wrong(width / height) != fewest_squares(width, height) for width, height in pictures)


@settings(max_examples=300)
@given(width=SIDES, height=SIDES, most=st.integers(1, 16))
def test_squares_reach_from_end_to_end_and_are_never_too_many(width: int, height: int, most: int) -> None:
    size, n = min(width, height), count_squares(width, height, most)
    places = place_squares(max(width, height), size, n)
    assert len(places) == n <= most
    if n > 1:
        assert (places[0], places[-1] + size) == (0, max(width, height))
        # Places are whole pixels.
        assert n == most or widest_gap(places, size) <= size / 20 + 1
    else:
        assert abs(places[0] - (max(width, height) - size) / 2) <= 0.5


@settings(max_examples=100)
@given(n_views=st.lists(st.integers(1, 5), max_size=40), most=st.integers(1, 20))
def test_batches_of_the_device_hold_every_view_once_and_views_of_one_kind(n_views: list[int], most: int) -> None:
    batches = cut_batches(n_views, most)
    places = [place for batch in batches for place in batch]
    assert sorted(places) == [(image, view) for image, n in enumerate(n_views) for view in range(n)]
    assert all(0 < len(batch) <= most for batch in batches)
    for batch in batches:
        assert len({n_views[image] for image, _ in batch}) == 1
        assert batch == sorted(batch)


@pytest.mark.parametrize(("top_k", "n_views", "expected"), [(20, 1, 20), (20, 2, 10), (20, 3, 7), (1, 4, 1)])
def test_the_views_of_an_image_share_its_branches(top_k: int, n_views: int, expected: int) -> None:
    assert share_branches(top_k, n_views) == expected
