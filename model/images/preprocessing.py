"""From encoded images to pixel values, exactly as the recognizer was trained.

RGB, bicubic with antialiasing to the short side, long side truncated, centre crop with Python's rounding (half to
even), then CLIP's mean and standard deviation. torchvision and PIL agree with this to one grey level, and to two in one
of a million values; under rules 1 and 2 of `pixels.py`, which resample by Pillow, to the last bit. transformers' CLIP
processor floors the crop's offset and is one pixel off for some sizes. What 8-bit RGB is for images of more bits, with
alpha or with several frames is `pixels.py`'s to say.

A large JPEG need not be decoded in full: libjpeg gives a half, a quarter or an eighth of it in a fraction of the time.
`decoding` says how far that may go. Only the scale of decoding differs: the crop shows the same part of the image.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from model.folder import PREPROCESSOR_FILE
from model.images.opening import MAX_IMAGE_PIXELS, ImageDecodeError, decode_errors, open_image
from model.images.pixels import PIXEL_RULE, TORCH_RULE
from model.images.reduced_decoding import DECODING, reduce_decoding
from model.images.resampling import Frame, centre_frame, cut_frames, resample_by_former_rule, square_frames
from model.images.seen_image import SeenImage, see, see_whole
from model.images.views import count_squares

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDecoding:
    """Decodes images, whatever is then made of them."""

    honour_exif: bool = True
    """Turn photographs upright by their EXIF orientation."""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """Larger images are refused before their pixels are decoded (a defence against decompression bombs)."""
    pixel_rule: int = PIXEL_RULE
    """Rule of `pixels.py`. It is the program's and no part of the folder: a recognizer does not change with it."""
    decoding: str = DECODING
    """How much of a JPEG is decoded: one of `reduced_decoding.DECODINGS`, and the program's as `pixel_rule` is. Rules 1
    and 2 decode all of it."""

    def frame(self, width: int, height: int) -> Frame:
        """Which part of an upright image of these pixels the model sees, and at which size."""
        raise NotImplementedError

    def frames(self, width: int, height: int, most: int) -> list[Frame]:
        """Squares of an upright image of these pixels, at most so many (`model.images.views`); one is the `frame`."""
        frame, n_squares = self.frame(width, height), count_squares(width, height, most)
        return [frame] if n_squares == 1 else square_frames(frame, n_squares)

    def view(self, image: Image.Image | bytes) -> np.ndarray:
        """The model's view of one image, uint8 [H, W, 3]: its only one, as `views` has it."""
        (view,) = self.views(image, 1)
        return view

    def views(self, image: Image.Image | bytes, most: int) -> list[np.ndarray]:
        """What the model sees of one image where it sees at most so many squares, each uint8 [H, W, 3].

        Bytes are decoded as `decoding` says. An image of the caller's is decoded in full and stays as it is.

        Raises ImageDecodeError for bytes that are no readable image.
        """
        if isinstance(image, bytes):
            return self.views_opened(self._open(image), most)
        return self.cut_views(self._see(image, "exact"), most)

    def views_opened(self, opened: Image.Image, most: int) -> list[np.ndarray]:
        """The views of an image that `open_image` gave and that nobody else needs: it may be decoded at a reduced size.

        Raises ImageDecodeError where it cannot be decoded.
        """
        return self.cut_views(self.see_opened(opened), most)

    def see_opened(self, opened: Image.Image) -> SeenImage:
        """The whole of an image that `open_image` gave and that nobody else needs, decoded as `views_opened` does it.

        Raises ImageDecodeError where it cannot be decoded.
        """
        return self._see(opened, self.decoding)

    def cut_views(self, seen: SeenImage, most: int) -> list[np.ndarray]:
        """What the model sees of a decoded image where it sees at most so many squares, each uint8 [H, W, 3].

        Raises ImageDecodeError where it cannot be resampled.
        """
        if self.pixel_rule >= TORCH_RULE:
            return cut_frames(seen.cut, self.frames(*seen.upright_size, most))
        with decode_errors():
            frames = self.frames(*seen.size, most)
            if len(frames) == 1:
                return [self._view_by_former_rule(seen.rgb)]
            return [resample_by_former_rule(seen.rgb, frame) for frame in frames]

    def open_upright(self, image: Image.Image | bytes) -> Image.Image:
        """The whole image as the model's view is cut from it: decoded in full, turned upright, in RGB.

        Raises ImageDecodeError for bytes that are no readable image.
        """
        opened = self._open(image) if isinstance(image, bytes) else image
        _check_not_empty(opened)
        return see_whole(opened, self.honour_exif, self.pixel_rule, self.max_image_pixels)

    def _open(self, data: bytes) -> Image.Image:
        return open_image(data, self.max_image_pixels, self.pixel_rule)

    def _see(self, opened: Image.Image, decoding: str) -> SeenImage:
        if self.pixel_rule < TORCH_RULE:
            with decode_errors():
                whole = self.open_upright(opened)
                return SeenImage(whole, whole.size, None)
        _check_not_empty(opened)
        size, resized = opened.size, self.frame(*opened.size)
        reduction = reduce_decoding(opened, (resized.width, resized.height), decoding)
        seen = see(opened, self.honour_exif, self.pixel_rule, self.max_image_pixels)
        return seen._replace(reduction=reduction, size=size) if reduction > 1 and seen.is_first else seen

    def _view_by_former_rule(self, whole: Image.Image) -> np.ndarray:
        """The view of an upright image under rules 1 and 2."""
        return resample_by_former_rule(whole, self.frame(*whole.size))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePreprocessor(ImageDecoding):
    """Decodes, crops and normalises images."""

    image_size: int
    """Height and width of the crop, pixels."""
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    def frame(self, width: int, height: int) -> Frame:
        """The centre crop, `image_size` a side."""
        return centre_frame(width, height, self.image_size)

    def normalise(self, crops_BHWC: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """uint8 crops [B, H, W, 3] to normalised pixel values [B, 3, H, W] on the crops' device, float32 by default."""
        # Only here: what decodes images does not have to load torch.
        import torch

        mean = torch.tensor(self.image_mean, device=crops_BHWC.device).view(1, 3, 1, 1)
        std = torch.tensor(self.image_std, device=crops_BHWC.device).view(1, 3, 1, 1)
        pixels_BCHW = crops_BHWC.permute(0, 3, 1, 2).float() / 255
        return ((pixels_BCHW - mean) / std).to(dtype or torch.float32)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes preprocessor_config.json."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("pixel_rule", "decoding")}
        Path(folder, PREPROCESSOR_FILE).write_text(json.dumps(fields, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ImagePreprocessor:
        """Reads preprocessor_config.json; unknown or missing fields are errors."""
        path = Path(folder, PREPROCESSOR_FILE)
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no {PREPROCESSOR_FILE}; expected a recognizer's folder")
        fields = json.loads(path.read_text())
        try:
            return cls(**{**fields, "image_mean": tuple(fields["image_mean"]), "image_std": tuple(fields["image_std"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} does not describe this preprocessing: {error}") from error


def fit_decoding(preprocessor: Any, settings: Any) -> Any:
    """A recognizer's preprocessor that decodes by settings: all that `ImageDecoding` has under the same names."""
    return replace(preprocessor, **{field.name: getattr(settings, field.name) for field in fields(ImageDecoding)})


def _check_not_empty(image: Image.Image) -> None:
    if 0 in image.size:
        raise ImageDecodeError(f"the image has no pixels ({image.width} x {image.height})")
