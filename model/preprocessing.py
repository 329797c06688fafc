"""From encoded images to pixel values, exactly as the recognizer was trained.

RGB, bicubic with antialiasing to the short side, long side truncated, centre crop with Python's rounding (half to
even), then CLIP's mean and standard deviation. torchvision and PIL agree with this to the last bit; transformers' CLIP
processor floors the crop's offset and is one pixel off for some sizes.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from model.folder import PREPROCESSOR_FILE

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
MAX_IMAGE_PIXELS = 178_956_970
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Above this the resized image would be far larger than its crop, so the crop is resampled straight from the source.
_MAX_RESIZED_PIXELS = 16_000_000


class ImageDecodeError(ValueError):
    """The bytes are no image that can be decoded."""


class ImageTooLargeError(ImageDecodeError):
    """The image claims more pixels than are allowed; `width` and `height` are what it claims, where that is known."""

    def __init__(self, message: str, width: int | None = None, height: int | None = None) -> None:
        super().__init__(message)
        self.width, self.height = width, height


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDecoding:
    """Decodes images, whatever is then made of them."""

    honour_exif: bool = True
    """Turn photographs upright by their EXIF orientation."""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """Larger images are refused before their pixels are decoded (a defence against decompression bombs)."""

    def open_upright(self, image: Image.Image | bytes) -> Image.Image:
        """The whole image as the model's view is cut from it: decoded, turned upright, in RGB.

        Raises ImageDecodeError for bytes that are no readable image.
        """
        opened = open_image(image, self.max_image_pixels) if isinstance(image, bytes) else image
        if 0 in opened.size:
            raise ImageDecodeError(f"the image has no pixels ({opened.width} x {opened.height})")
        load_pixels(opened)
        with decode_errors():
            return to_rgb(upright(opened) if self.honour_exif else opened)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePreprocessor(ImageDecoding):
    """Decodes, crops and normalises images."""

    image_size: int
    """Height and width of the crop, pixels."""
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    def view(self, image: Image.Image | bytes) -> np.ndarray:
        """The model's view of one image, uint8 [image_size, image_size, 3].

        Raises ImageDecodeError for bytes that are no readable image.
        """
        whole = self.open_upright(image)
        with decode_errors():
            return np.asarray(resize_and_crop(whole, self.image_size))

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
        Path(folder, PREPROCESSOR_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

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


def open_image(data: bytes, max_image_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """The image in these bytes with its header read, pixels not yet decoded.

    Raises ImageDecodeError where the bytes are no image of a known format, and ImageTooLargeError where they claim more
    than `max_image_pixels`.
    """
    if not data:
        raise ImageDecodeError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # The limit is checked below; Pillow's own warning about large images says the same.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{error}") from error
    # As in `load_pixels`: damaged numbers lead to errors of any kind.
    except Exception as error:
        start = data[:16]
        expected = ", ".join(IMAGE_FORMATS[:-1])
        raise ImageDecodeError(f"not a readable image (starts with {start!r}); expected one of {expected}") from error
    if image.width * image.height > max_image_pixels:
        message = (
            f"{image.width} x {image.height} pixels are {image.width * image.height}; the limit is {max_image_pixels}"
        )
        raise ImageTooLargeError(message, image.width, image.height)
    return image


def allow_image_pixels(max_image_pixels: int) -> None:
    """Lifts Pillow's own limit, which holds for the whole process, where it would stand below this one."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_image_pixels)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB. Alpha is dropped, not blended, as in training; 16-bit grey is scaled, not clipped."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        scale = 255.0 if values.max(initial=0) <= 1 else 1.0
        image = Image.fromarray((values * scale).clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Short side to `size` (bicubic), then the centre `size` x `size`."""
    width, height = image.size
    new_width, new_height, left, top = _resized(width, height, size)
    if new_width * new_height > _MAX_RESIZED_PIXELS:
        scale_x, scale_y = width / new_width, height / new_height
        box = (left * scale_x, top * scale_y, (left + size) * scale_x, (top + size) * scale_y)
        return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if (new_width, new_height) != image.size:
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def crop_box(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """What `resize_and_crop` shows of an image of these pixels: left, top, right, bottom in its own pixels."""
    new_width, new_height, left, top = _resized(width, height, size)
    return (
        left * width / new_width,
        top * height / new_height,
        (left + size) * width / new_width,
        (top + size) * height / new_height,
    )


def _resized(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Width and height with the short side brought to `size`, and left and top of the centre crop in that."""
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)
    new_width, new_height = (size, new_long) if width <= height else (new_long, size)
    return new_width, new_height, round((new_width - size) / 2), round((new_height - size) / 2)


@contextmanager
def decode_errors() -> Iterator[None]:
    """What Pillow raises for an image that it cannot convert or resample, as ImageDecodeError."""
    try:
        yield
    except (OSError, ValueError, MemoryError) as error:
        raise ImageDecodeError(f"{type(error).__name__}: {error}") from error


def load_pixels(image: Image.Image) -> None:
    """Decodes the pixels.

    Pillow's plug-ins reckon with what they read, and raise whatever damaged numbers lead to: a TypeError for an offset
    that is a float, errors of struct and zlib, divisions by zero. Nothing but the image can be at fault here.
    """
    try:
        image.load()
    except Exception as error:
        raise ImageDecodeError(f"{type(error).__name__}: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; a damaged EXIF block counts as none.

    The image is decoded already: getexif() would decode a PNG by the way, where damage would pass for damaged EXIF; and
    Pillow turns a TIFF itself when it decodes it. ImageOps.exif_transpose also writes the other tags anew, and fails
    where one of them is damaged.
    """
    try:
        turn = _TURNS.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    # As in `load_pixels`: damaged numbers lead to errors of any kind.
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)
