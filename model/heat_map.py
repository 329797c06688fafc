"""Maps over patches as colours over a photograph."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

# "Inferno" of matplotlib (CC0) at 0, 0.1, ... 1: equal steps look equal, and the darker is the less, in grey too.
COLOURS = (
    (0, 0, 4),
    (22, 11, 57),
    (66, 10, 104),
    (106, 23, 110),
    (147, 38, 103),
    (188, 55, 84),
    (221, 81, 58),
    (243, 120, 25),
    (252, 165, 10),
    (246, 215, 70),
    (252, 255, 164),
)
OPACITY = 0.65
"""Enough for the colours to be told apart, little enough for the photograph to be recognised."""


def colour(values: np.ndarray) -> np.ndarray:
    """Values between 0 and 1 as colours, uint8 [..., 3]."""
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(values, stops, channel) for channel in zip(*COLOURS, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def draw_over(view: Image.Image, values_PP: Tensor, side: int, opacity: float = OPACITY) -> Image.Image:
    """The view, `side` pixels wide and high, under the colours of a map, whose maximum is the brightest."""
    smooth = Image.fromarray(relative(values_PP)).resize((side, side), Image.Resampling.BILINEAR)
    resized = view.resize((side, side), Image.Resampling.BICUBIC)
    return Image.blend(resized, Image.fromarray(colour(np.asarray(smooth))), opacity)


def relative(values_PP: Tensor) -> np.ndarray:
    """A map's values as shares of its maximum; zeros where all are zero."""
    values = values_PP.numpy()
    highest = values.max()
    return values / highest if highest > 0 else values
