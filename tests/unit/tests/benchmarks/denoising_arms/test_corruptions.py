"""The corruptions at test: those of training, and two that it never sees."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.benchmarks.denoising_arms.corruptions import TRAINED, UNSEEN, pixelate


def pictures(side_px: int) -> Tensor:
    """Smooth gradients, and an edge within a block of pixels, so that every corruption has something to spoil."""
    ramp = torch.linspace(20, 200, side_px).expand(2, 3, side_px, side_px).clone()
    inside = slice(side_px * 5 // 19, side_px * 16 // 25)
    ramp[:, 0, inside, inside] = 250
    return ramp


@pytest.mark.parametrize("side_px", [48, 96])
@pytest.mark.parametrize("name", UNSEEN)
def test_more_strength_changes_a_picture_more(name: str, side_px: int) -> None:
    clean, generator = pictures(side_px), torch.Generator()
    change = [(UNSEEN[name](clean, strength, generator) - clean).abs().mean().item() for strength in (0.1, 0.5, 1.0)]
    assert 0 < change[0] < change[1] < change[2]
    assert torch.equal(clean, pictures(side_px))


def test_training_never_draws_an_unseen_corruption() -> None:
    assert not TRAINED.keys() & UNSEEN.keys()


@pytest.mark.parametrize("side_px", [48, 96])
def test_blocks_of_four_pixels_have_one_colour(side_px: int) -> None:
    spoilt = pixelate(pictures(side_px), 1.0, torch.Generator())
    blocks = spoilt.unfold(2, 4, 4).unfold(3, 4, 4)
    assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks))
    assert not torch.equal(spoilt[..., 3], spoilt[..., 4])
