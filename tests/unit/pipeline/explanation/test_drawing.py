"""The picture of an explanation."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from model import Explanation
from pipeline.explanation import drawing
from pipeline.explanation.drawing import write_picture
from tests.unit.pipeline.explanation.conftest import HOSTILE, called


def drawn(explanation: Explanation, address: str = "photo.jpg") -> Image.Image:
    stream = io.BytesIO()
    write_picture(explanation, address, stream)
    image = Image.open(stream, formats=["PNG"])
    image.load()
    return image


def luminance(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")).astype(float)


def test_the_view_comes_first_and_the_best_label_third(explanation: Explanation) -> None:
    rollout = torch.zeros(4, 4)
    rollout[2, 1] = 0.3
    labels = [replace(explanation.labels[0], rollout=rollout), *explanation.labels[1:]]
    picture = drawn(replace(explanation, labels=labels))
    side, step = drawing._TILE, drawing._TILE + drawing._GAP
    view = plain_view(explanation)
    tops = [top for top in range(picture.height - side) if np.array_equal(np.asarray(tile(picture, 0, top)), view)]
    assert len(tops) == 1
    overlay = luminance(tile(picture, 2 * step, tops[0]))
    row, column = np.unravel_index(overlay.argmax(), overlay.shape)
    assert (row * 4 // side, column * 4 // side) == (2, 1)


def tile(picture: Image.Image, left: int, top: int) -> Image.Image:
    left += drawing._MARGIN
    return picture.crop((left, top, left + drawing._TILE, top + drawing._TILE))


def plain_view(explanation: Explanation) -> np.ndarray:
    return np.asarray(explanation.view.resize((drawing._TILE, drawing._TILE), Image.Resampling.BICUBIC))


def test_several_squares_are_outlined_on_the_photograph_and_each_is_shown(of_squares: Explanation) -> None:
    picture = drawn(of_squares)
    side, step = drawing._TILE, drawing._TILE + drawing._GAP
    squares = [np.asarray(seen.image.resize((side, side), Image.Resampling.BICUBIC)) for seen in of_squares.views]
    tops = [
        top for top in range(picture.height - side) if np.array_equal(np.asarray(tile(picture, step, top)), squares[0])
    ]
    assert len(tops) == 1
    assert np.array_equal(np.asarray(tile(picture, 2 * step, tops[0])), squares[1])
    # 96 x 64 in a tile: squares of two thirds of its width, at both ends.
    photograph = np.asarray(tile(picture, 0, tops[0]))
    height = round(side * 64 / 96)
    middle = photograph[height // 2, :, :].astype(int)
    for colour_name, edges in zip(drawing._OUTLINES, [(0, 2 * side // 3 - 1), (side // 3, side - 1)], strict=True):
        colour = np.array(ImageColor.getrgb(colour_name))
        is_outline = np.flatnonzero((middle == colour).all(axis=1))
        assert np.abs(is_outline[[0, -1]] - edges).max() <= 1
    assert (photograph[height + 1 :] == 255).all()


def test_more_layers_make_it_higher_and_more_heads_than_a_row_holds_too(explanation: Explanation) -> None:
    def height(n_layers: int, n_heads: int) -> int:
        best = replace(explanation.labels[0], maps=torch.rand(n_layers, n_heads, 4, 4))
        return drawn(replace(explanation, labels=[best])).height

    assert height(1, 1) == height(1, 8) < height(1, 9) == height(2, 8) < height(3, 8)


def test_without_labels_it_shows_the_answer_position(explanation: Explanation) -> None:
    picture = drawn(replace(explanation, labels=[]))
    assert picture.width == drawn(explanation).width
    assert picture.height < drawn(explanation).height


def test_of_very_many_labels_the_first_are_drawn(explanation: Explanation) -> None:
    many = replace(explanation, labels=explanation.labels[:1] * 200)
    assert drawn(many).height == drawn(replace(many, labels=many.labels[:50])).height


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_line(explanation: Explanation, text: str) -> None:
    usual, picture = drawn(called(explanation, "dog")), drawn(called(explanation, text), address=text)
    assert picture.size == usual.size
    # Neither the margins nor the maps are written over.
    assert (np.asarray(picture)[:, -drawing._MARGIN :] == 255).all()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_fitted_text_is_one_line_of_the_width(text: str) -> None:
    fitted = drawing._fitted(text, 18, 120)
    assert fitted.isprintable()
    assert drawing._font(18).getlength(fitted) <= 120
