"""Which squares of an image a model with a square view sees, and how its squares share the work. Numbers alone.

Everything here depends on an image's width and height and on settings: squares lie where they lie on any machine, and
batches of the device are cut at the same places whenever the same images come together.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

CENTRE, WHOLE = "centre", "whole"
MAX_SQUARES = 16
_SQUARES_OF_WHOLE = 4
# Up to this ratio of long to short side one square is enough: it leaves out a tenth of the picture at each end.
_NEARLY_SQUARE = Fraction(5, 4)
# Gaps between neighbours that are not worth one more square, in sides of a square. A picture of 1000 x 499 has two.
_MAX_GAP = Fraction(1, 20)


def most_squares(views: str | int) -> int:
    """How many squares of an image are seen at most: 1 for `centre`, 4 for `whole`, or the number itself.

    Raises ValueError for anything else.
    """
    if views == CENTRE:
        return 1
    if views == WHOLE:
        return _SQUARES_OF_WHOLE
    if isinstance(views, int) and not isinstance(views, bool) and 1 <= views <= MAX_SQUARES:
        return views
    raise ValueError(f"views is {views!r}; expected {CENTRE}, {WHOLE} or a whole number, 1 to {MAX_SQUARES}")


def count_squares(width: int, height: int, most: int) -> int:
    """How many squares of the short side cover an image: one where it is nearly square, else at least two.

    Args:
        width, height: pixels, at least 1.
        most: they are never more. A longer image has gaps between its squares.
    """
    if is_nearly_square(width, height):
        return 1
    ratio = Fraction(max(width, height), min(width, height))
    # n squares over n - 1 gaps of g cover n + (n - 1) g sides.
    needed = -(-(ratio + _MAX_GAP) // (1 + _MAX_GAP))
    return min(most, max(2, int(needed)))


def is_nearly_square(width: npt.ArrayLike, height: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether one square in the middle shows nearly all of an image, or of each of several.

    Args:
        width, height: pixels.
    """
    long, short = np.maximum(width, height), np.minimum(width, height)
    return np.asarray(_NEARLY_SQUARE.denominator * long < _NEARLY_SQUARE.numerator * short)


def place_squares(length: int, size: int, n_squares: int) -> list[int]:
    """Where squares begin along the long side: one in the middle, or from end to end, evenly spread.

    Args:
        length: pixels of the long side, at least `size`.
        size: pixels of a square's side.
    """
    room = length - size
    if n_squares == 1:
        return [round(room / 2)]
    return [round(place * room / (n_squares - 1)) for place in range(n_squares)]


def share_branches(top_k: int, n_views: int) -> int:
    """Branches of one view, where an image of so many views has `top_k`; rounded up."""
    return -(-top_k // n_views)


def count_tokens(n_views: int, image_tokens: int, view_tokens: int) -> int:
    """Image tokens that the decoder reads of one view, where an image has so many; 0 is all.

    Args:
        image_tokens: of a view of any image.
        view_tokens: of a view of an image that has several; 0 is as many as of any other.
    """
    return view_tokens if view_tokens and n_views > 1 else image_tokens


def cut_batches(n_views: Sequence[int], most: int) -> list[list[tuple[int, int]]]:
    """Batches of the device, as places (image, view): views of images that have equally many, in the images' order.

    All views of a batch have as many branches as one another.

    Args:
        n_views: of each image, at least 1.
        most: views in a batch.
    """
    batches = []
    for n_alike in sorted(set(n_views)):
        alike = [(image, view) for image, n in enumerate(n_views) if n == n_alike for view in range(n)]
        batches += [alike[start : start + most] for start in range(0, len(alike), most)]
    return batches
