"""What the pixels of a decoded image are in 8-bit RGB: rules, each with a number.

Rule 1, of the oldest runs, did not look at what the image holds, and made black squares of images that hold 10 or 12
bits, black on transparent, or a blank first frame. Rule 2 looks. Rule 3, of new runs, is rule 2 for images that are
resized by torch and not by Pillow, in which the model's view differs by a grey level or two, and that are turned by
their EXIF orientation after that and not before. What all rules say alike: 8-bit images stay as they are, and alpha is
dropped, not blended, as in training.

Rules 2 and 3, where they differ from rule 1:

- Whole numbers of more than 8 bits are those of 8, 10, 12, 14 or 16 bits: of the fewest that hold them. Fractions
  range to 1 or to 255. Where an image uses less than a quarter of that range, is below 0 or above all ranges, its
  darkest value becomes black and its brightest white. Darkest and brightest leave out the thousandth at either end, so
  that a hot pixel decides nothing; so do values that stand for none (no numbers, -9999, -32768, beyond 1e30, and the
  one that a GeoTIFF names), which are black.
- Colours of 16 bits are scaled all three alike, by all 16 bits. Pillow hands out the upper eight.
- Where dropping alpha leaves one colour, the image is laid on white, or on black where it is light.
- Of pages the first counts that is no thumbnail or mask; of frames or pages the first that is not of one colour.

Before they are resized, images that use their range, and opaque ones, have the same pixels under all rules.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from PIL import Image

PIXEL_RULE = 3
"""The rule of new runs."""
TORCH_RULE = 3
"""The first rule whose images torch resizes."""

# Channels that vary by no more than this of 255 show nothing: an image of one colour, which JPEG may have roughened.
_FLAT_LEVELS = 8
_FEW = 16
_BITS = (8, 10, 12, 14, 16)
_WHITES = (1.0, 255.0)
_LEAST_SHARE = 1 / 4
_OUTLIERS_PERCENT = 0.1
_N_LOOKED_AT = 4_000_000
_NO_VALUES = (-9999.0, -32768.0)
_BEYOND = 1e30
_GDAL_NODATA = 42113
_LIGHT = 128
# How Pillow takes one byte of each 16-bit colour. The other byte is what it takes of the other order.
_OTHER_BYTE = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}


def is_flat(image: Image.Image | np.ndarray) -> bool:
    """Whether an image shows one colour alone: RGB, or uint8 [H, W, 3]."""
    # Few pixels tell of most images that they are not flat; all pixels take as long as decoding a small JPEG.
    few: Image.Image | np.ndarray
    if isinstance(image, Image.Image):
        few = image.resize((_FEW, _FEW), Image.Resampling.NEAREST)
    else:
        few = image[:: max(1, image.shape[0] // _FEW), :: max(1, image.shape[1] // _FEW)]
    return _has_small_ranges(few) and _has_small_ranges(image)


def _has_small_ranges(image: Image.Image | np.ndarray) -> bool:
    # Pillow finds a colour's range ten times as fast as NumPy does with colours in the last place.
    rgb = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    return all(high - low <= _FLAT_LEVELS for low, high in rgb.getextrema())  # type: ignore[misc]


def to_rgb(image: Image.Image, rule: int = PIXEL_RULE) -> Image.Image:
    """A decoded image in 8-bit RGB, by one of the module's rules."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(_fixed_whole(values) if rule == 1 else _scale_whole(values, _named_no_value(image)))
    elif image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(_fixed_fractions(values) if rule == 1 else _scale_fractions(values, image))
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return rgb if rule == 1 or not image.has_transparency_data else _lay_on_ground(image, rgb)


def uses_upper_bytes(rgb: Image.Image) -> bool:
    """Whether the upper bytes of 16-bit colours say enough: the colours use their range."""
    low, high = _span(np.asarray(rgb))
    return high - low >= 256 * _LEAST_SHARE


def has_16_bit_colours(image: Image.Image) -> bool:
    """Whether an image that is not decoded yet stores three or four colours of 16 bits, of which Pillow takes eight."""
    tiles = getattr(image, "tile", ())
    return bool(tiles) and all(_with_other_byte(tile) is not None for tile in tiles)


def take_lower_bytes(image: Image.Image) -> None:
    """Lets an image of 16-bit colours that is not decoded yet decode to their lower bytes."""
    image.tile = [_with_other_byte(tile) for tile in image.tile]  # type: ignore[attr-defined]


def join_bytes(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """The image whose 16-bit colours have these upper and lower bytes, scaled by what it holds."""
    values = np.asarray(upper.convert("RGB")).astype(np.int64) << 8 | np.asarray(lower.convert("RGB"))
    return Image.fromarray(_scale_whole(values, None))


def _with_other_byte(tile: Any) -> Any:
    """The same tile, its colours' other byte taken; None where they are not of 16 bits."""
    codec, extents, offset, args = tile
    rawmode = args if isinstance(args, str) else args[0] if args and isinstance(args[0], str) else ""
    bands, _, order = rawmode.partition(";")
    if bands not in ("RGB", "RGBX", "RGBA") or order not in _OTHER_BYTE:
        return None
    other = f"{bands};{_OTHER_BYTE[order]}"
    return type(tile)(codec, extents, offset, other if isinstance(args, str) else (other, *args[1:]))


def _fixed_whole(values: np.ndarray) -> np.ndarray:
    return (values.clip(0, 65535) >> 8).astype(np.uint8)


def _fixed_fractions(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values)
    scale = 255.0 if values.max(initial=0) <= 1 else 1.0
    return (values * scale).clip(0, 255).astype(np.uint8)


def _scale_whole(values: np.ndarray, no_value: float | None) -> np.ndarray:
    """Whole numbers of more than 8 bits in 8 bits."""
    low, high = _span(values, no_value)
    bits = next((bits for bits in _BITS if high < 1 << bits), None)
    if low == high:
        return _fixed_whole(values)
    if bits is not None and low >= 0 and high - low >= (1 << bits) * _LEAST_SHARE:
        values = np.where(_is_value(values, no_value), values, 0)
        return (values.clip(0, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)
    return _stretch(values.astype(np.float64), low, high, no_value)


def _scale_fractions(values: np.ndarray, image: Image.Image) -> np.ndarray:
    no_value = _named_no_value(image)
    low, high = _span(values, no_value)
    white = next((white for white in _WHITES if high <= white), None)
    if low == high:
        return _fixed_fractions(values)
    if white is not None and low >= 0 and high - low >= white * _LEAST_SHARE:
        is_value = _is_value(values, no_value) | np.isinf(values)
        return (np.where(is_value, values, 0) * (255 / white)).clip(0, 255).astype(np.uint8)
    return _stretch(values, low, high, no_value)


def _stretch(values: np.ndarray, low: float, high: float, no_value: float | None) -> np.ndarray:
    shares = (np.where(_is_value(values, no_value), values, low) - low) / (high - low)
    return np.rint(shares.clip(0, 1) * 255).astype(np.uint8)


def _span(values: np.ndarray, no_value: float | None = None) -> tuple[float, float]:
    """The darkest and the brightest value, but for outliers; without them where the rest is all one value."""
    sample = _sample(values)
    sample = sample[_is_value(sample, no_value)]
    if not sample.size:
        return 0.0, 0.0
    low, high = np.percentile(sample, (_OUTLIERS_PERCENT, 100 - _OUTLIERS_PERCENT), method="nearest")
    return (float(low), float(high)) if low < high else (float(sample.min()), float(sample.max()))


def _sample(values: np.ndarray) -> np.ndarray:
    """Some of many values, the same each time, from all columns."""
    step = max(1, values.size // _N_LOOKED_AT)
    while math.gcd(step, values.shape[-1]) > 1:
        step += 1
    return values.reshape(-1)[::step]


def _is_value(values: np.ndarray, no_value: float | None) -> np.ndarray:
    """bool of the values' shape: False for what stands for no value."""
    known = (*_NO_VALUES, *(() if no_value is None else (no_value,)))
    return (np.abs(values) < _BEYOND) & ~np.isin(values, known)


def _named_no_value(image: Image.Image) -> float | None:
    """The value that a GeoTIFF says stands for none; None where it does not say."""
    tags = getattr(image, "tag_v2", {})
    try:
        return float(str(tags.get(_GDAL_NODATA)).strip("\0 "))
    except ValueError:
        return None


def _lay_on_ground(image: Image.Image, rgb: Image.Image) -> Image.Image:
    """The image on a ground of another colour where it is of one colour without alpha."""
    if not is_flat(rgb):
        return rgb
    transparent = image.convert("RGBA")
    is_light = np.asarray(rgb.convert("L")).mean() >= _LIGHT
    ground = Image.new("RGBA", image.size, "black" if is_light else "white")
    return Image.alpha_composite(ground, transparent).convert("RGB")
