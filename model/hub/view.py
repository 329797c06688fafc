"""The view of models that take pictures of any shape: the whole picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.preprocessing import ImageDecoding, decode_errors


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeImages(ImageDecoding):
    """Decodes pictures and makes large ones smaller; the model's own processor does the rest."""

    max_view_pixels: int
    """Larger pictures are made so small: nothing is won by handing a photograph of 50 megapixels to a processor."""

    def view(self, image: Image.Image | bytes) -> np.ndarray:
        """The whole picture, uint8 [H, W, 3].

        Raises ImageDecodeError for bytes that are no readable image.
        """
        whole = self.open_upright(image)
        scale = (self.max_view_pixels / (whole.width * whole.height)) ** 0.5
        with decode_errors():
            if scale < 1:
                size = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
                whole = whole.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
            return np.asarray(whole)
