"""The tiny recognizers of the model's tests, and scenes of noise."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.denoising_arms.scenes import Scenes
from tests.unit.model.conftest import build_recognizer, one_thread, recognizer

__all__ = ["build_recognizer", "one_thread", "recognizer"]

_NAMES = ["tiger", "cat", "stop sign", "whale"]


@pytest.fixture(scope="module")
def make_scenes():
    """Makes eight scenes of two objects, so many pixels wide."""

    def make(side_px: int) -> Scenes:
        crops = np.random.default_rng(0).integers(0, 256, (8, side_px, side_px, 3), dtype=np.uint8)
        return Scenes(crops, [[_NAMES[number % 4], _NAMES[(number + 1) % 4]] for number in range(8)])

    return make
