"""Encoded bytes to an image whose header is read, and to its pixels: with limits, and with one error for all damage."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from model.images.image_formats import explain_unreadable, format_of, readers_for
from model.images.pixels import PIXEL_RULE

MAX_IMAGE_PIXELS = 178_956_970
# NewSubfileType of a TIFF's page: a smaller copy of another page, or a mask of one.
_SUBFILE_TYPE, _NO_PAGE = 254, 0b101
_OLD_SUBFILE_TYPE, _SMALLER_COPY = 255, 2
# Frames or pages of an image that are looked at for one that shows something.
N_FRAMES_LOOKED_AT = 64


class ImageDecodeError(ValueError):
    """The bytes are no image that can be decoded."""


class ImageTooLargeError(ImageDecodeError):
    """The image claims more pixels than are allowed; `width` and `height` are what it claims, where that is known."""

    def __init__(self, message: str, width: int | None = None, height: int | None = None) -> None:
        super().__init__(message)
        self.width, self.height = width, height


def open_image(data: bytes, max_image_pixels: int = MAX_IMAGE_PIXELS, rule: int = PIXEL_RULE) -> Image.Image:
    """The image in these bytes with its header read, pixels not yet decoded; of a TIFF the page that `rule` chooses.

    Raises ImageDecodeError where the bytes are no image of a known format, and ImageTooLargeError where they claim more
    than `max_image_pixels`.
    """
    if not data:
        raise ImageDecodeError("the file is empty (0 bytes)")
    kind = format_of(data)
    try:
        with warnings.catch_warnings():
            # The limit is checked below; Pillow's own warning about large images says the same.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=readers_for(kind))
            if rule > 1:
                _choose_page(image)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{error}") from error
    # As in `load_pixels`: damaged numbers lead to errors of any kind.
    except Exception as error:
        raise ImageDecodeError(explain_unreadable(data, kind, error)) from error
    check_size(image, max_image_pixels)
    return image


def check_size(image: Image.Image, max_image_pixels: int) -> None:
    """Raises ImageTooLargeError unless an image has at most so many pixels."""
    if image.width * image.height > max_image_pixels:
        message = (
            f"{image.width} x {image.height} pixels are {image.width * image.height}; the limit is {max_image_pixels}"
        )
        raise ImageTooLargeError(message, image.width, image.height)


def _choose_page(image: Image.Image) -> None:
    """Turns a TIFF to its first page that is no smaller copy or mask; to the first where there is none."""
    if image.format != "TIFF" or not _is_no_page(image):
        return
    try:
        for page in range(1, N_FRAMES_LOOKED_AT):
            image.seek(page)
            if not _is_no_page(image):
                return
    # As in `load_pixels`: damaged numbers lead to errors of any kind.
    except Exception:
        pass
    image.seek(0)


def _is_no_page(image: Image.Image) -> bool:
    tags = image.tag_v2  # type: ignore[attr-defined]
    kind, old_kind = tags.get(_SUBFILE_TYPE, 0), tags.get(_OLD_SUBFILE_TYPE, 0)
    return (isinstance(kind, int) and bool(kind & _NO_PAGE)) or old_kind == _SMALLER_COPY


def allow_image_pixels(max_image_pixels: int) -> None:
    """Lifts Pillow's own limit, which holds for the whole process, where it would stand below this one."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_image_pixels)


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
