"""What the demo model knows: composed scenes. Tells photographs from them, whose labels by that model mean nothing.

The test is a linear one, on six figures of the model's view, so that it costs a third of a millisecond. The weights are
a logistic regression on 8,000 scenes and 80 photographs. `tests/benchmarks/demo_scenes.py` fits and measures them.

Shape suffixes: H height, W width, P pixels, C the three channels.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from model.fingerprint import fingerprint_folder
from model.folder import DEMO_MODEL, resolve_folder

# Photographs have fine texture and darkness, little colour, and channels that rise and fall together under one light.
_WEIGHTS = {
    "fine_edges": 1.450,
    "coarse_edges": -0.986,
    "darkness": 1.310,
    "saturation": -0.819,
    "red_with_green": 2.517,
    "green_with_blue": 3.194,
}
# 7 scenes in 1,000 lie above it.
_LIMIT = -2.835
_COMPARED = ("config.json", "model.safetensors")
_DARK = 48
_MIN_SHARE = 0.1


@cache
def is_demo_model(model_fingerprint: str) -> bool:
    """Whether a recognizer of this fingerprint is the one that comes along, under whatever name."""
    return model_fingerprint == fingerprint_folder(resolve_folder(DEMO_MODEL))


def is_demo_folder(folder: Path) -> bool:
    """Whether a recognizer's folder holds the model that comes along; the weights of no other are read for that."""
    demo = resolve_folder(DEMO_MODEL)
    sizes = [[(each / name).stat().st_size for name in _COMPARED if (each / name).is_file()] for each in (folder, demo)]
    return sizes[0] == sizes[1] and is_demo_model(fingerprint_folder(folder))


def is_scene(crop_HWC: np.ndarray) -> bool:
    """Whether the demo model's view of an image, uint8 [H, W, 3] with sides that 4 divides, looks like its scenes.

    Of 6,000 fresh scenes 0.7 % fail, of 80 photographs of COCO 92.5 %.
    """
    figures = scene_figures(crop_HWC)
    return sum(weight * figures[name] for name, weight in _WEIGHTS.items()) <= _LIMIT


def scene_figures(crop_HWC: np.ndarray) -> dict[str, float]:
    """The figures that tell scenes from photographs, by name; `crop_HWC` as in `is_scene`."""
    pixels_HWC = crop_HWC.astype(np.float32)
    half_HWC = _halve(pixels_HWC)
    grey_HW, quarter_HW = _grey(pixels_HWC), _halve(_grey(half_HWC))
    fine = [np.abs(step).mean() for step in _steps(grey_HW)]
    coarse = [np.square(step).mean() for step in _steps(quarter_HW)]
    red, green, blue = (crop_HWC[..., channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    colours_PC = half_HWC.reshape(-1, 3) - half_HWC.mean(axis=(0, 1))
    # The half is a floor for images of one colour.
    covariance_CC = colours_PC.T @ colours_PC / len(colours_PC) + 0.5 * np.eye(3)
    deviation_C = np.sqrt(np.diag(covariance_CC))
    correlation_CC = covariance_CC / np.outer(deviation_C, deviation_C)
    return {
        "fine_edges": float(np.log(np.mean(fine) + 0.5)),
        "coarse_edges": float(np.log(np.sqrt(np.mean(coarse)) + 0.5)),
        "darkness": float(np.log(np.count_nonzero(grey_HW < _DARK) / grey_HW.size + 0.003)),
        "saturation": float(np.log(spread.mean() + 4)),
        "red_with_green": float(correlation_CC[0, 1]),
        "green_with_blue": float(correlation_CC[1, 2]),
    }


def describe_strangers(n_strange: int, n_images: int) -> str | None:
    """What to tell of images that the demo model labelled; None where only as few are no scenes as chance explains.

    Args:
        n_strange: images for which `is_scene` is false.
        n_images: images that were labelled.
    """
    if not n_strange or n_strange < _MIN_SHARE * n_images:
        return None
    which = "the image does" if n_images == 1 else f"{n_strange:,} of {n_images:,} images do"
    return (
        f"{which} not look like the composed scenes that the demo model knows, so its labels mean nothing; "
        "`tagstream models` lists models for photographs"
    )


def _grey(pixels_HWC: np.ndarray) -> np.ndarray:
    return (pixels_HWC[..., 0] + pixels_HWC[..., 1] + pixels_HWC[..., 2]) / 3


def _halve(pixels: np.ndarray) -> np.ndarray:
    """An image, [H, W] or [H, W, 3], at half its height and width."""
    return (pixels[0::2, 0::2] + pixels[1::2, 0::2] + pixels[0::2, 1::2] + pixels[1::2, 1::2]) / 4


def _steps(grey_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences of neighbours in rows and in columns."""
    return grey_HW[:, 1:] - grey_HW[:, :-1], grey_HW[1:] - grey_HW[:-1]
