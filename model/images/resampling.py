"""The part of an image that a model sees, at the size it sees it: where that lies, and how it is resampled.

Bicubic with antialiasing, across and then down, rounded to whole levels in between: as recognizers were trained.
Pillow's passes do that, those of its `resize` in this order up to version 12; 13 goes down first for some tall images.
torch's passes take a fifth of the time of those where they shrink, half of it where they enlarge. Their weights have 15
bits or 14 and not 22, so they differ by one grey level in a value of a hundred, and by two in one of a million. Of a
large image they take band after band, which is bit for bit what torch makes of the whole, without a second copy of it.

Shape suffixes: H, W an image's rows and columns; C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from model.images.image_memory import shared_pixels
from model.images.views import place_squares

# Above this the resized image would be far larger than its crop, so the crop is resampled straight from the source.
_MAX_RESIZED_PIXELS = 16_000_000
# What Pillow holds in one block, so that it need not be copied.
_MAX_PIXELS_AT_ONCE = 4_000_000
_BAND_PIXELS = 1 << 20
# Pillow resizes what has fewer pixels, before and after: that wins nothing, and nobody has to load torch for it.
_LEAST_PIXELS = 50_000
# Axes of [C, H, W].
_DOWN, _ACROSS = 1, 2
# Whether a turn swaps rows and columns, and which way the image that it is given runs against the turned one.
_SWAPS_FLIPS_X_FLIPS_Y = {
    None: (False, False, False),
    Image.Transpose.FLIP_LEFT_RIGHT: (False, True, False),
    Image.Transpose.ROTATE_180: (False, True, True),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, False, True),
    Image.Transpose.TRANSPOSE: (True, False, False),
    Image.Transpose.ROTATE_270: (True, False, True),
    Image.Transpose.TRANSVERSE: (True, True, True),
    Image.Transpose.ROTATE_90: (True, True, False),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of a resized image, in whole pixels of that."""

    width: int
    """Width of the whole image once it is resized."""
    height: int
    box: tuple[int, int, int, int]
    """Left, top, right and bottom of the part."""

    def before(self, turn: Image.Transpose | None) -> Frame:
        """Where the same part lies in the image that becomes this one by a turn."""
        swaps, flips_x, flips_y = _SWAPS_FLIPS_X_FLIPS_Y[turn]
        (left, top, right, bottom), width, height = self.box, self.width, self.height
        if swaps:
            left, top, right, bottom, width, height = top, left, bottom, right, height, width
        if flips_x:
            left, right = width - right, width - left
        if flips_y:
            top, bottom = height - bottom, height - top
        return Frame(width, height, (left, top, right, bottom))


def swaps_sides(turn: Image.Transpose | None) -> bool:
    """Whether a turn makes rows of columns."""
    return _SWAPS_FLIPS_X_FLIPS_Y[turn][0]


def centre_frame(width: int, height: int, size: int) -> Frame:
    """The recognizers' frame of an image: short side to `size`, then the centre `size` x `size`.

    The long side is cut down to whole pixels; half a pixel of offset is rounded to even.
    """
    new_long = int(size * max(width, height) / min(width, height))
    new_width, new_height = (size, new_long) if width <= height else (new_long, size)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return Frame(new_width, new_height, (left, top, left + size, top + size))


def square_frames(frame: Frame, n_squares: int) -> list[Frame]:
    """Squares of the short side along the long side of the image that a frame is a part of (`model.images.views`)."""
    width, height = frame.width, frame.height
    side = min(width, height)
    places = place_squares(max(width, height), side, n_squares)
    corners = [(0, place) for place in places] if width <= height else [(place, 0) for place in places]
    return [Frame(width, height, (left, top, left + side, top + side)) for left, top in corners]


def cut_frames(cut: Callable[[Frame], np.ndarray], frames: Sequence[Frame]) -> list[np.ndarray]:
    """What frames of one resized image show, uint8 [H, W, 3] each. The image is resized once, unless it would be huge.

    Args:
        cut: what one frame shows.
    """
    width, height = frames[0].width, frames[0].height
    if len(frames) == 1 or width * height > _MAX_RESIZED_PIXELS:
        return [cut(frame) for frame in frames]
    whole_HWC = cut(Frame(width, height, (0, 0, width, height)))
    boxes = [frame.box for frame in frames]
    return [np.ascontiguousarray(whole_HWC[top:bottom, left:right]) for left, top, right, bottom in boxes]


def resample(
    image: Image.Image,
    frame: Frame,
    turn: Image.Transpose | None = None,
    true_size: tuple[float, float] | None = None,
) -> np.ndarray:
    """The part of an image that a frame shows, uint8 [H, W, 3].

    It runs in its caller's thread alone. The first call for an image that is not small loads torch, in seconds:
    `load_torch` does it before.

    Args:
        image: RGB.
        frame: in the upright image.
        turn: what turns the image upright. The part is turned, not the image: that costs less.
        true_size: width and height that the image stands for, in its own pixels. One that was decoded at a half or less
            is rounded up to whole pixels, so that its last column and row stand for less; default its size.
    """
    stored, size = frame.before(turn), true_size or (float(image.width), float(image.height))
    left, top, right, bottom = stored.box
    if frame.width * frame.height > _MAX_RESIZED_PIXELS:
        resized = image.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=box_in(stored, size))
        return turn_pixels(np.asarray(resized), turn)
    if not _is_for_torch(image, stored):
        part_HWC = _resize_by_pillow(image, stored, size, down_first=swaps_sides(turn))[top:bottom, left:right]
    else:
        shrunk_CHW = _shrink(image, stored, size, down_first=swaps_sides(turn))
        # A quarter of the time that a transposed copy takes.
        part_HWC = np.stack(list(shrunk_CHW[:, top:bottom, left:right]), axis=-1)
    return turn_pixels(part_HWC, turn)


def load_torch() -> None:
    """Loads what `resample` uses, so that the first image does not wait for it."""
    import torch  # noqa: F401


def resample_by_former_rule(image: Image.Image, frame: Frame) -> np.ndarray:
    """As `resample`, by Pillow: of runs from before there was another."""
    if frame.width * frame.height > _MAX_RESIZED_PIXELS:
        return resample(image, frame)
    if (frame.width, frame.height) != image.size:
        image = image.resize((frame.width, frame.height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop(frame.box))


def turn_pixels(pixels_HWC: np.ndarray, turn: Image.Transpose | None) -> np.ndarray:
    """Pixels, uint8 [H, W, 3], turned."""
    return pixels_HWC if turn is None else np.asarray(Image.fromarray(pixels_HWC).transpose(turn))


def box_in(frame: Frame, size: tuple[float, float]) -> tuple[float, float, float, float]:
    """The part that a frame shows, in pixels of the image before it is resized."""
    scale_x, scale_y = size[0] / frame.width, size[1] / frame.height
    left, top, right, bottom = frame.box
    return left * scale_x, top * scale_y, right * scale_x, bottom * scale_y


def _is_for_torch(image: Image.Image, frame: Frame) -> bool:
    # torch takes a single row or column for another layout of memory.
    is_line = 1 in (frame.width, frame.height)
    return not is_line and max(image.width * image.height, frame.width * frame.height) >= _LEAST_PIXELS


def _resize_by_pillow(image: Image.Image, frame: Frame, size: tuple[float, float], down_first: bool) -> np.ndarray:
    """The whole image resized, pass by pass: versions of Pillow differ in which comes first."""
    if down_first:
        image = image.resize((image.width, frame.height), Image.Resampling.BICUBIC, box=(0, 0, image.width, size[1]))
    image = image.resize((frame.width, image.height), Image.Resampling.BICUBIC, box=(0, 0, size[0], image.height))
    if image.height != frame.height:
        image = image.resize((frame.width, frame.height), Image.Resampling.BICUBIC, box=(0, 0, frame.width, size[1]))
    return np.asarray(image)


def _shrink(image: Image.Image, frame: Frame, size: tuple[float, float], down_first: bool) -> np.ndarray:
    """The whole image resized by torch, uint8 [C, H, W], the first pass in bands along it."""
    lengths, scales = (frame.height, frame.width), (frame.height / size[1], frame.width / size[0])
    first, second = (_DOWN, _ACROSS) if down_first else (_ACROSS, _DOWN)
    bands = [_pass(band_CHW, first, lengths[first - 1], scales[first - 1]) for band_CHW in _bands(image, first)]
    once_CHW = bands[0] if len(bands) == 1 else np.concatenate(bands, axis=second)
    return _pass(once_CHW, second, lengths[second - 1], scales[second - 1])


def _bands(image: Image.Image, axis: int) -> Iterator[np.ndarray]:
    """Parts of an image, uint8 [C, H, W], each as long as the image is along an axis."""
    if image.width * image.height <= _MAX_PIXELS_AT_ONCE:
        yield shared_pixels(image).transpose(2, 0, 1)
        return
    n_lines, n_in_line = (image.height, image.width) if axis == _ACROSS else (image.width, image.height)
    n_lines_a_band = max(1, _BAND_PIXELS // n_in_line)
    for start in range(0, n_lines, n_lines_a_band):
        stop = min(start + n_lines_a_band, n_lines)
        box = (0, start, image.width, stop) if axis == _ACROSS else (start, 0, stop, image.height)
        yield shared_pixels(image.crop(box)).transpose(2, 0, 1)


def _pass(pixels_CHW: np.ndarray, axis: int, length: int, scale: float) -> np.ndarray:
    """Pixels shrunk to a length along an axis; the channels are three."""
    # Only here: what does not resample does not have to load torch.
    import torch

    height, width = pixels_CHW.shape[1:]
    new_size, scales = ([length, width], (scale, 1.0)) if axis == _DOWN else ([height, length], (1.0, scale))
    # torch.nn.functional.interpolate takes a size or scales. Its size would forget what an image truly stands for.
    resize: Any = torch.ops.aten._upsample_bicubic2d_aa
    return resize(torch.from_numpy(pixels_CHW)[None], new_size, False, *scales)[0, :3].numpy()
