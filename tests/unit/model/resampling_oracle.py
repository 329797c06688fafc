"""A slow oracle of resampling: every weight of every pixel, in float64."""

from __future__ import annotations

import numpy as np
from PIL import Image

from model.images.resampling import Frame


def cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def weights(n_pixels: int, true_length: float, new_length: int) -> np.ndarray:
    """What each pixel gives to each of the resized line, float64 [new_length, n_pixels]."""
    scale = true_length / new_length
    centres = (np.arange(new_length) + 0.5) * scale
    distances = (np.arange(n_pixels) + 0.5 - centres[:, None]) / max(scale, 1.0)
    given = cubic(distances)
    return given / given.sum(axis=1, keepdims=True)


def slow_resample(image: Image.Image, frame: Frame, true_size: tuple[float, float] | None = None) -> np.ndarray:
    """The part of an image that a frame shows, int [H, W, 3]: bicubic with antialiasing.

    It is cut off and rounded as often as the recipe does that: once across and once down.
    """
    true_width, true_height = true_size or image.size
    across = weights(image.width, true_width, frame.width)
    down = weights(image.height, true_height, frame.height)
    once = _whole(np.einsum("xw,hwc->hxc", across, np.asarray(image, dtype=np.float64), optimize=True))
    left, top, right, bottom = frame.box
    return _whole(np.einsum("yh,hxc->yxc", down, once, optimize=True))[top:bottom, left:right].astype(int)


def _whole(levels: np.ndarray) -> np.ndarray:
    return np.rint(levels.clip(0, 255))
