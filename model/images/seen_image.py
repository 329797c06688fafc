"""An image as it is meant: the frame or page that shows something, in 8-bit RGB, and what turns it upright."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from model.images.opening import MAX_IMAGE_PIXELS, N_FRAMES_LOOKED_AT, check_size, decode_errors, load_pixels
from model.images.pixels import (
    PIXEL_RULE,
    TORCH_RULE,
    has_16_bit_colours,
    is_flat,
    join_bytes,
    take_lower_bytes,
    to_rgb,
    uses_upper_bytes,
)
from model.images.reduced_decoding import forget_reduction
from model.images.resampling import Frame, resample, swaps_sides

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


class SeenImage(NamedTuple):
    """An image that was decoded, maybe at a reduced size. Views are cut from it."""

    rgb: Image.Image
    """As it is stored, in RGB."""
    size: tuple[int, int]
    """Width and height of the image as it is stored, decoded in full."""
    turn: Image.Transpose | None
    """What turns it upright."""
    reduction: int = 1
    """1, 2, 4 or 8: `rgb` has so many times fewer pixels a side, rounded up."""
    is_first: bool = True
    """Whether it is the frame or page that the image stood at."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright image, decoded in full."""
        width, height = self.size
        return (height, width) if swaps_sides(self.turn) else (width, height)

    def cut(self, frame: Frame) -> np.ndarray:
        """What a frame of the upright image shows, uint8 [H, W, 3].

        Raises ImageDecodeError where it cannot be resampled.
        """
        true_size = self.size[0] / self.reduction, self.size[1] / self.reduction
        with decode_errors():
            return resample(self.rgb, frame, self.turn, true_size)


def see(opened: Image.Image, honour_exif: bool, rule: int, max_image_pixels: int) -> SeenImage:
    """An opened image decoded: the first of its frames or pages, from the one where it stands, that is not flat.

    Raises ImageDecodeError where it cannot be decoded.
    """
    first = _see_frame(opened, honour_exif, rule)
    if rule == 1 or not is_flat(first.rgb):
        return first
    start = opened.tell()
    try:
        n_frames = getattr(opened, "n_frames", 1)
        if n_frames > start + 1:
            # The image itself goes on to other frames.
            first = first._replace(rgb=first.rgb.copy())
            forget_reduction(opened)
        for number in range(start + 1, min(n_frames, start + N_FRAMES_LOOKED_AT)):
            opened.seek(number)
            check_size(opened, max_image_pixels)
            if not is_flat((frame := _see_frame(opened, honour_exif, rule)).rgb):
                return frame._replace(is_first=False)
        opened.seek(start)
    # A damaged frame behind one that is whole. As in `load_pixels`: it may raise anything.
    except Exception:
        pass
    return first


def see_whole(
    opened: Image.Image, honour_exif: bool = True, rule: int = PIXEL_RULE, max_image_pixels: int = MAX_IMAGE_PIXELS
) -> Image.Image:
    """An opened image decoded, turned upright and in RGB; the image stands at the frame or page that is shown.

    Raises ImageDecodeError where it cannot be decoded.
    """
    seen = see(opened, honour_exif, rule, max_image_pixels)
    return _turned(seen.rgb, seen.turn)


def _see_frame(opened: Image.Image, honour_exif: bool, rule: int) -> SeenImage:
    # Pillow lets go of it once the pixels are decoded.
    stream, frame = getattr(opened, "fp", None), opened.tell()
    is_deep = rule > 1 and has_16_bit_colours(opened)
    load_pixels(opened)
    turn = _turn_upright(opened) if honour_exif else None
    # Rules 1 and 2 look at values in the order that they have in the upright image.
    turn_at_once, turn_later = (turn, None) if rule < TORCH_RULE else (None, turn)
    with decode_errors():
        turned = _turned(opened, turn_at_once)
        rgb = to_rgb(turned, rule)
        if not is_deep or not isinstance(stream, io.BytesIO) or uses_upper_bytes(rgb):
            return SeenImage(rgb, rgb.size, turn_later)
        lower = _open_lower_bytes(stream, str(opened.format), frame)
        if lower is not None:
            rgb = join_bytes(turned, _turned(lower, turn_at_once))
        return SeenImage(rgb, rgb.size, turn_later)


def _open_lower_bytes(stream: io.BytesIO, image_format: str, frame: int) -> Image.Image | None:
    """The lower bytes of an image's 16-bit colours; None where it does not decode a second time as it did the first."""
    try:
        lower = Image.open(stream, formats=[image_format])
        lower.seek(frame)
        take_lower_bytes(lower)
        lower.load()
    # As in `load_pixels`: damaged numbers lead to errors of any kind.
    except Exception:
        return None
    return lower


def _turn_upright(image: Image.Image) -> Image.Transpose | None:
    """What turns an image upright by its EXIF orientation; a damaged EXIF block counts as none.

    The image is decoded already: getexif() would decode a PNG by the way, where damage would pass for damaged EXIF; and
    Pillow turns a TIFF itself when it decodes it. ImageOps.exif_transpose also writes the other tags anew, and fails
    where one of them is damaged.
    """
    try:
        return _TURNS.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    # As in `load_pixels`: damaged numbers lead to errors of any kind.
    except Exception:
        return None


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)
