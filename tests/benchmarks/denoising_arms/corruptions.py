"""What spoils a picture: the corruptions that training may use, and two that it never sees.

Shape suffixes: B images, C channels, H height, W width. Pixels are floats from 0 to 255.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from model.training.corruptions import CORRUPTIONS as TRAINED
from model.training.corruptions import Corrupt


def veil(pixels_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """White haze of up to 85 %."""
    return pixels_BCHW + 0.85 * strength * (255 - pixels_BCHW)


def pixelate(pixels_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Blocks of one colour, up to four pixels wide."""
    n_blocks = round(pixels_BCHW.shape[-1] / (1 + 3 * strength))
    coarse = F.interpolate(pixels_BCHW, (n_blocks, n_blocks), mode="area")
    return F.interpolate(coarse, pixels_BCHW.shape[2:])


UNSEEN: dict[str, Corrupt] = {"haze": veil, "pixelation": pixelate}
CORRUPTIONS = TRAINED | UNSEEN
