"""What spoils a picture, so that a recognizer learns from bad ones: noise, blur, low light, occlusion, JPEG.

Shape suffixes: B images, C channels, H height, W width. Pixels are floats from 0 to 255.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Corrupt = Callable[[Tensor, float, torch.Generator], Tensor]
"""Pixels [B, C, H, W], a strength above 0 to 1, what is drawn from."""
_PATCHES_A_SIDE = 6
_MIN_STRENGTH = 0.1


def add_noise(pixels_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise, up to 60 grey levels strong."""
    return pixels_BCHW + 60 * strength * torch.randn(pixels_BCHW.shape, generator=generator)


def blur(pixels_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A Gaussian of up to a 24th of the width, cut off at a 12th."""
    n_channels, width = pixels_BCHW.shape[1], pixels_BCHW.shape[-1]
    radius = max(1, width // 12)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / (width / 24 * strength)) ** 2)
    taps = (taps / taps.sum()).expand(n_channels, 1, 1, -1)
    padded = F.pad(pixels_BCHW, (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, taps, groups=n_channels)
    return F.conv2d(across, taps.transpose(2, 3), groups=n_channels)


def darken(pixels_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Down to a tenth of the light, with the noise of a small sensor."""
    noise_BCHW = torch.randn(pixels_BCHW.shape, generator=generator)
    return pixels_BCHW * (1 - 0.9 * strength) + 4 * noise_BCHW


def occlude(pixels_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Grey squares over up to 40 % of the picture, a sixth of the side each."""
    covered = torch.rand(len(pixels_BCHW), 1, _PATCHES_A_SIDE, _PATCHES_A_SIDE, generator=generator) < 0.4 * strength
    return torch.where(F.interpolate(covered.float(), pixels_BCHW.shape[2:]) > 0, 128.0, pixels_BCHW)


def compress(pixels_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """JPEG, down to quality 4."""
    decoded = []
    for image in to_crops(pixels_BCHW):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=round(44 - 40 * strength))
        decoded.append(np.asarray(Image.open(buffer)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float()


CORRUPTIONS: dict[str, Corrupt] = {
    "noise": add_noise,
    "blur": blur,
    "low light": darken,
    "occlusion": occlude,
    "JPEG": compress,
}


def corrupt_crops(crops_BHWC: np.ndarray, share: float, generator: torch.Generator) -> np.ndarray:
    """Crops of which each is spoilt with a probability, uint8 [B, H, W, C]; as `corrupt_each`."""
    return np.stack(to_crops(corrupt_each(to_pixels(crops_BHWC), share, generator)))


def corrupt_each(pixels_BCHW: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Each image spoilt with a probability, by one of the corruptions at a random strength."""
    names = list(CORRUPTIONS)
    choice_B = torch.randint(len(names), (len(pixels_BCHW),), generator=generator)
    is_hit_B = torch.rand(len(pixels_BCHW), generator=generator) < share
    strengths = torch.rand(len(names), generator=generator) * (1 - _MIN_STRENGTH) + _MIN_STRENGTH
    result = pixels_BCHW.clone()
    for place, name in enumerate(names):
        chosen_B = is_hit_B & (choice_B == place)
        if chosen_B.any():
            result[chosen_B] = CORRUPTIONS[name](pixels_BCHW[chosen_B], float(strengths[place]), generator)
    return result


def to_crops(pixels_BCHW: Tensor) -> list[np.ndarray]:
    """The pixels as `Recognizer.prepare` takes them, uint8 [H, W, C] each."""
    rounded = pixels_BCHW.round().clamp(0, 255).to(torch.uint8)
    return list(rounded.permute(0, 2, 3, 1).contiguous().numpy())


def to_pixels(crops_BHWC: np.ndarray) -> Tensor:
    """uint8 crops as pixels [B, C, H, W] from 0 to 255."""
    return torch.from_numpy(crops_BHWC).permute(0, 3, 1, 2).float()
