"""Corruptions of pictures: as strong as asked, the same again, and only where they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.training.corruptions import (
    CORRUPTIONS,
    corrupt_crops,
    corrupt_each,
    darken,
    occlude,
    to_crops,
    to_pixels,
)


def pictures(n_images: int = 6, side_px: int = 48) -> Tensor:
    """Smooth gradients with an edge, so that every corruption has something to spoil."""
    ramp = torch.linspace(20, 200, side_px).expand(n_images, 3, side_px, side_px).clone()
    inside = slice(side_px * 5 // 19, side_px * 16 // 25)
    ramp[:, 0, inside, inside] = 250
    return ramp


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side_px", [48, 96])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_strength_changes_a_picture_more(name: str, side_px: int) -> None:
    clean = pictures(side_px=side_px)
    change = [
        (CORRUPTIONS[name](clean, strength, generator()) - clean).abs().mean().item() for strength in (0.1, 0.5, 1.0)
    ]
    assert 0 < change[0] < change[1] < change[2]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_draw_spoils_the_same_and_leaves_the_clean_picture_as_it_is(name: str) -> None:
    clean = pictures()
    first, second = (CORRUPTIONS[name](clean, 0.7, generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == clean.shape
    assert torch.equal(clean, pictures())


def test_low_light_leaves_a_tenth() -> None:
    assert darken(pictures(), 1.0, generator()).mean() == pytest.approx(0.1 * pictures().mean().item(), abs=0.1)


def test_covered_places_are_grey_squares_of_an_eighth_of_the_side() -> None:
    covered = occlude(torch.zeros(200, 3, 48, 48), 1.0, generator())
    squares = covered.unfold(2, 8, 8).unfold(3, 8, 8)
    assert ((squares == 128).all(dim=(1, 4, 5)) | (squares == 0).all(dim=(1, 4, 5))).all()
    assert (covered == 128).float().mean().item() == pytest.approx(0.4, abs=0.02)


def test_crops_are_rounded_and_kept_in_range() -> None:
    values = torch.tensor([-3.0, 0.4, 254.6, 300.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    (crop,) = to_crops(values)
    assert crop.shape == (2, 2, 3)
    assert crop[..., 0].tolist() == [[0, 0], [255, 255]]


def test_the_share_of_spoilt_pictures_is_the_one_asked_for() -> None:
    clean = pictures(400)
    is_spoilt = (corrupt_each(clean, 0.25, generator()) != clean).flatten(1).any(dim=1)
    assert is_spoilt.float().mean().item() == pytest.approx(0.25, abs=0.06)


def test_no_share_spoils_nothing_and_a_whole_share_everything() -> None:
    clean = pictures(60)
    assert torch.equal(corrupt_each(clean, 0.0, generator()), clean)
    assert (corrupt_each(clean, 1.0, generator()) != clean).flatten(1).any(dim=1).all()


def test_crops_come_back_as_they_were_where_none_is_spoilt() -> None:
    crops = np.stack(to_crops(pictures(3)))
    assert np.array_equal(corrupt_crops(crops, 0.0, generator()), crops)


def test_spoilt_crops_are_the_spoilt_pixels_rounded() -> None:
    crops = np.stack(to_crops(pictures(8)))
    spoilt = corrupt_crops(crops, 1.0, generator(4))
    assert spoilt.dtype == np.uint8
    assert np.array_equal(spoilt, np.stack(to_crops(corrupt_each(to_pixels(crops), 1.0, generator(4)))))
    assert (spoilt != crops).any(axis=(1, 2, 3)).all()
