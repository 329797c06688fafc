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

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from model.folder import PREPROCESSOR_FILE
from model.images.image_formats import explain_unreadable, format_of, readers_for
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
from model.images.reduced_decoding import DECODING, forget_reduction, reduce_decoding
from model.images.resampling import (
    Frame,
    centre_frame,
    cut_frames,
    resample,
    resample_by_former_rule,
    square_frames,
    swaps_sides,
)
from model.images.views import count_squares

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
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
# NewSubfileType of a TIFF's page: a smaller copy of another page, or a mask of one.
_SUBFILE_TYPE, _NO_PAGE = 254, 0b101
_OLD_SUBFILE_TYPE, _SMALLER_COPY = 255, 2
_N_FRAMES_LOOKED_AT = 64


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
        return self._views(image, "exact", most)

    def views_opened(self, opened: Image.Image, most: int) -> list[np.ndarray]:
        """The views of an image that `open_image` gave and that nobody else needs: it may be decoded at a reduced size.

        Raises ImageDecodeError where it cannot be decoded.
        """
        return self._views(opened, self.decoding, most)

    def open_upright(self, image: Image.Image | bytes) -> Image.Image:
        """The whole image as the model's view is cut from it: decoded in full, turned upright, in RGB.

        Raises ImageDecodeError for bytes that are no readable image.
        """
        opened = self._open(image) if isinstance(image, bytes) else image
        _check_not_empty(opened)
        return see_whole(opened, self.honour_exif, self.pixel_rule, self.max_image_pixels)

    def _open(self, data: bytes) -> Image.Image:
        return open_image(data, self.max_image_pixels, self.pixel_rule)

    def _views(self, opened: Image.Image, decoding: str, most: int) -> list[np.ndarray]:
        if self.pixel_rule < TORCH_RULE:
            with decode_errors():
                whole = self.open_upright(opened)
                frames = self.frames(*whole.size, most)
                if len(frames) == 1:
                    return [self._view_by_former_rule(whole)]
                return [resample_by_former_rule(whole, frame) for frame in frames]
        _check_not_empty(opened)
        size, resized = opened.size, self.frame(*opened.size)
        reduction = reduce_decoding(opened, (resized.width, resized.height), decoding)
        seen = _see(opened, self.honour_exif, self.pixel_rule, self.max_image_pixels)
        if reduction > 1 and seen.is_first:
            seen = seen._replace(reduction=reduction, size=size)
        return cut_frames(seen.cut, self.frames(*seen.upright_size, most))

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
    _check_size(image, max_image_pixels)
    return image


def _check_not_empty(image: Image.Image) -> None:
    if 0 in image.size:
        raise ImageDecodeError(f"the image has no pixels ({image.width} x {image.height})")


def _check_size(image: Image.Image, max_image_pixels: int) -> None:
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
        for page in range(1, _N_FRAMES_LOOKED_AT):
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


def see_whole(
    opened: Image.Image, honour_exif: bool = True, rule: int = PIXEL_RULE, max_image_pixels: int = MAX_IMAGE_PIXELS
) -> Image.Image:
    """An opened image decoded, turned upright and in RGB; the image stands at the frame or page that is shown.

    Raises ImageDecodeError where it cannot be decoded.
    """
    seen = _see(opened, honour_exif, rule, max_image_pixels)
    return _turned(seen.rgb, seen.turn)


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


def _see(opened: Image.Image, honour_exif: bool, rule: int, max_image_pixels: int) -> SeenImage:
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
        for number in range(start + 1, min(n_frames, start + _N_FRAMES_LOOKED_AT)):
            opened.seek(number)
            _check_size(opened, max_image_pixels)
            if not is_flat((frame := _see_frame(opened, honour_exif, rule)).rgb):
                return frame._replace(is_first=False)
        opened.seek(start)
    # A damaged frame behind one that is whole. As in `load_pixels`: it may raise anything.
    except Exception:
        pass
    return first


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
