"""Pixels as Pillow holds them."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from PIL import Image

from model.images.image_memory import shared_pixels


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (33, 21), (2000, 2000)])
def test_they_are_those_of_the_image(size):
    image = noise(*size)
    pixels = shared_pixels(image)
    assert pixels.shape == (size[1], size[0], 4)
    assert np.array_equal(pixels[..., :3], np.asarray(image))


def test_they_are_not_copied():
    image = noise(33, 21)
    pixels = shared_pixels(image)
    image.putpixel((5, 7), (1, 2, 3))
    assert pixels[7, 5, :3].tolist() == [1, 2, 3]


def test_they_outlive_the_image():
    image = noise(500, 400)
    expected = np.array(image)
    pixels = shared_pixels(image)[:, :, :3]
    del image
    gc.collect()
    others = [Image.new("RGB", (500, 400), "red") for _ in range(10)]
    assert np.array_equal(pixels, expected)
    assert len(others) == 10


def test_an_image_in_several_blocks_is_copied():
    image = noise(2100, 2100)
    pixels = shared_pixels(image)
    assert pixels.shape == (2100, 2100, 3)
    assert np.array_equal(pixels, np.asarray(image))


def test_an_image_of_another_mode_is_refused():
    with pytest.raises(ValueError, match="the image is in L; expected RGB"):
        shared_pixels(Image.new("L", (3, 2)))
