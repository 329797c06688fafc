"""The view of models that take pictures of any shape: the whole picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.images.preprocessing import ImageDecoding
from model.images.resampling import Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeImages(ImageDecoding):
    """Decodes pictures and makes large ones smaller; the model's own processor does the rest."""

    max_view_pixels: int
    """Larger pictures are made so small: nothing is won by handing a photograph of 50 megapixels to a processor."""

    def frame(self, width: int, height: int) -> Frame:
        """The whole picture, of at most `max_view_pixels`."""
        scale = min(1.0, (self.max_view_pixels / (width * height)) ** 0.5)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        return Frame(width, height, (0, 0, width, height))

    def _view_by_former_rule(self, whole: Image.Image) -> np.ndarray:
        frame = self.frame(*whole.size)
        if (frame.width, frame.height) != whole.size:
            whole = whole.resize((frame.width, frame.height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        return np.asarray(whole)
