"""The view of models that take pictures of any shape."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.hub.view import WholeImages

VIEW = WholeImages(max_view_pixels=2_000)


def encoded(width: int, height: int, image_format: str = "PNG") -> bytes:
    blots = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC).save(buffer, image_format, quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("rule", [1, 2, 3])
@pytest.mark.parametrize(("size", "expected"), [((50, 40), (40, 50)), ((800, 200), (22, 89))])
def test_a_picture_keeps_its_shape_and_has_no_more_pixels_than_are_allowed(rule, size, expected):
    assert replace(VIEW, pixel_rule=rule).view(encoded(*size)).shape == (*expected, 3)


def test_a_former_rule_makes_the_picture_smaller_as_it_did():
    data = encoded(800, 200)
    whole = Image.open(io.BytesIO(data))
    expected = whole.resize((89, 22), Image.Resampling.BICUBIC, reducing_gap=2.0)
    assert np.array_equal(replace(VIEW, pixel_rule=2).view(data), np.asarray(expected))


@pytest.mark.parametrize("decoding", ["fast", "faster"])
def test_a_photograph_far_above_what_is_allowed_is_decoded_at_a_reduced_size(decoding):
    data = encoded(1001, 803, "JPEG")
    seen = replace(VIEW, decoding=decoding).view(data)
    difference = np.abs(seen.astype(int) - replace(VIEW, decoding="exact").view(data))
    # Another decoding leaves its traces, but few.
    assert 0 < difference.max() <= 3
