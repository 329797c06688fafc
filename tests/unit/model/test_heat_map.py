"""Colours over photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from model.heat_map import COLOURS, colour, draw_over


def luminance(colours: np.ndarray) -> np.ndarray:
    return colours.astype(float) @ [0.2126, 0.7152, 0.0722]


def test_colours_are_those_of_matplotlibs_inferno() -> None:
    from matplotlib import colormaps

    values = np.linspace(0, 1, 101)
    expected = colormaps["inferno"](values)[:, :3] * 255
    # Between the anchors the curve is not quite straight.
    assert np.abs(colour(values).astype(float) - expected).max() < 12
    assert np.abs(np.array(COLOURS) - expected[::10]).max() <= 1


def test_more_is_brighter() -> None:
    assert (np.diff(luminance(colour(np.linspace(0, 1, 64)))) > 0).all()


@pytest.mark.parametrize("highest", [1.0, 0.001])
def test_the_patch_with_most_attention_is_the_brightest(highest: float) -> None:
    values = torch.full((4, 4), highest / 100)
    values[1, 2] = highest
    drawn = luminance(np.asarray(draw_over(Image.new("RGB", (40, 40), "grey"), values, 80)))
    assert drawn.shape == (80, 80)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert (row // 20, column // 20) == (1, 2)


def test_a_map_without_any_attention_is_dark() -> None:
    drawn = np.asarray(draw_over(Image.new("RGB", (8, 8), "black"), torch.zeros(2, 2), 16))
    assert drawn.max() <= max(COLOURS[0])
