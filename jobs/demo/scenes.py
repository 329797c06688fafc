"""Scenes with known content, composed from the pictograms of an emoji font: the corpus of the demo model.

Composed scenes can be made in any number, and some can ship with the project. A scene depends on nothing but its seed
and the font's version.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SCENE_PX = 192
MAX_OBJECTS = 6
_MIN_COLOURS = 8
_FONT_PX = 109  # the one size at which the font holds its bitmaps
_MIN_VISIBLE_SHARE = 0.65
_MAX_LAYOUTS = 50
_MAX_ASPECT = 8
_SQUARE = (SCENE_PX, SCENE_PX)
_MAX_ROTATION_DEG = 30
# Shortest and longest side of an object, as a share of the scene's, by the number of objects.
_SIDE_SHARES = {1: (0.35, 0.8), 2: (0.3, 0.6), 3: (0.28, 0.5), 4: (0.26, 0.45), 5: (0.25, 0.4), 6: (0.25, 0.38)}
# Names that take no article. Plurals, which take none either, are known by their ending.
_UNCOUNTED = frozenset("broccoli cheese coffee corn cutlery DNA garlic popcorn soap spaghetti sushi yarn".split())
_SINGULAR_IN_S = frozenset("bus cactus compass compact disc hibiscus lotus octopus rhinoceros hippopotamus".split())
_SILENT = ("hour", "umb")
_OPENINGS = ("", "", "", "a picture of ", "there is ", "I can see ", "look at ")

Pictograms = Mapping[str, Image.Image]


@dataclass(frozen=True, slots=True)
class Scene:
    """A JPEG with its content: the names of its objects, in alphabetical order, and a caption."""

    jpeg: bytes
    labels: list[str]
    caption: str


@dataclass(frozen=True, slots=True)
class _Placed:
    """An object of a scene: RGBA pixels, and the position of their upper left corner in pixels."""

    pixels: Image.Image
    left: int
    top: int


@cache
def pictogram_names() -> dict[str, str]:
    """The character of each pictogram that the corpus shows, by everyday name."""
    names = {}
    for line in (files("jobs.demo") / "pictograms.txt").read_text("utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            unicode_name, _, everyday = (part.strip() for part in line.partition("="))
            names[everyday or unicode_name.lower()] = unicodedata.lookup(unicode_name)
    return names


def read_pictograms(font: Path) -> dict[str, Image.Image]:
    """The pictograms of a font: RGBA images cut to their content, by everyday name.

    Args:
        font: NotoColorEmoji.ttf (Debian: fonts-noto-color-emoji).

    Raises ValueError where the font lacks a pictogram.
    """
    try:
        loaded = ImageFont.truetype(str(font), _FONT_PX)
    except OSError as error:
        raise ValueError(f"{font} is no font that can be read: {error}; expected Noto Color Emoji") from error
    pictograms = {}
    for name, character in pictogram_names().items():
        canvas = Image.new("RGBA", (_FONT_PX * 2, _FONT_PX * 2))
        ImageDraw.Draw(canvas).text((0, 0), character, font=loaded, embedded_color=True)
        box = canvas.getbbox()
        # An outline font would draw in one colour, or a box for a character that it lacks.
        if box is None or len(canvas.getcolors(canvas.width * canvas.height) or ()) < _MIN_COLOURS:
            raise ValueError(f"{font} has no pictogram for {name}; expected Noto Color Emoji 2.042 or newer")
        pictograms[name] = canvas.crop(box)
    return pictograms


def scene_size(aspect: str) -> tuple[int, int]:
    """Width and height of scenes of an aspect such as 3:2, pixels; the short side is that of square scenes.

    Raises ValueError for what is no aspect, or one above 8:1.
    """
    width, _, height = aspect.partition(":")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise ValueError(f"the aspect is {aspect}; expected width and height, such as 3:2")
    short, long = sorted((int(width), int(height)))
    if not short or long > _MAX_ASPECT * short:
        raise ValueError(
            f"the aspect is {aspect}; expected sides above 0, the longer at most {_MAX_ASPECT} times the other"
        )
    return round(SCENE_PX * int(width) / short), round(SCENE_PX * int(height) / short)


def draw_scene(
    pictograms: Pictograms,
    seed: Sequence[int],
    max_objects: int = MAX_OBJECTS,
    size: tuple[int, int] = _SQUARE,
) -> Scene:
    """Composes a scene of one to `max_objects` different pictograms.

    Args:
        pictograms: RGBA images by name.
        seed: the corpus's seed and the scene's number; the same pair gives the same scene.
        max_objects: 1 to 6.
        size: width and height, pixels. Objects are as large beside the short side as in a square scene.
    """
    rng = np.random.default_rng(seed)
    n_objects = int(rng.integers(1, max_objects + 1))
    names = [str(name) for name in rng.choice(sorted(pictograms), n_objects, replace=False)]
    image = _background(rng, size)
    for placed in _layout([pictograms[name] for name in names], rng, size):
        image.paste(placed.pixels, (placed.left, placed.top), placed.pixels)
    buffer = io.BytesIO()
    _lit(image, rng).save(buffer, "JPEG", quality=int(rng.integers(55, 96)))
    return Scene(buffer.getvalue(), sorted(names), _caption(names, rng))


def _background(rng: np.random.Generator, size: tuple[int, int] = _SQUARE) -> Image.Image:
    """A background of two colours, mixed by a gradient, stripes, soft noise or patches."""
    low, high = rng.integers(0, 256, (2, 3)) * 0.75 + 32
    down, right = np.mgrid[0 : size[1], 0 : size[0]] / min(size)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * right + np.sin(angle) * down
    kind = rng.integers(4)
    if kind == 0:
        share = (along - along.min()) / np.ptp(along)
    elif kind == 1:
        share = (np.sin(along * rng.uniform(10, 60)) + 1) / 2 * rng.uniform(0.3, 1)
    else:
        coarse = rng.random((int(rng.integers(2, 16)),) * 2)
        coarse = coarse if kind == 2 else coarse.round()
        resampling = Image.Resampling.BICUBIC if kind == 2 else Image.Resampling.NEAREST
        share = np.asarray(Image.fromarray(np.uint8(coarse * 255)).resize(size, resampling)) / 255
    mixed = low + (high - low) * share[:, :, None]
    return Image.fromarray(np.uint8(np.clip(mixed, 0, 255)))


def _layout(pictograms: list[Image.Image], rng: np.random.Generator, size: tuple[int, int] = _SQUARE) -> list[_Placed]:
    """Sizes, rotations and positions that leave enough of every object visible; the best of 50 tries if none does."""
    best: tuple[float, list[_Placed]] = (-1.0, [])
    for _ in range(_MAX_LAYOUTS):
        placed = [_place(pictogram, len(pictograms), rng, size) for pictogram in pictograms]
        visible = min(_visible_shares(placed, size))
        if visible > best[0]:
            best = (visible, placed)
        if visible >= _MIN_VISIBLE_SHARE:
            break
    return best[1]


def _place(
    pictogram: Image.Image, n_objects: int, rng: np.random.Generator, size: tuple[int, int] = _SQUARE
) -> _Placed:
    side = min(size) * rng.uniform(*_SIDE_SHARES[n_objects])
    scale = side / max(pictogram.size)
    width, height = (max(1, round(length * scale)) for length in pictogram.size)
    pixels = pictogram.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if rng.random() < 0.5:
        pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn = rng.uniform(-_MAX_ROTATION_DEG, _MAX_ROTATION_DEG)
    pixels = pixels.rotate(turn, Image.Resampling.BICUBIC, expand=True)
    # Up to a fifth of an object lies outside.
    left, top = (
        int(rng.uniform(-0.2 * length, room - 0.8 * length)) for length, room in zip(pixels.size, size, strict=True)
    )
    return _Placed(pixels, left, top)


def _visible_shares(placed: list[_Placed], size: tuple[int, int] = _SQUARE) -> list[float]:
    """The share of each object's pixels that lies within the scene and is not covered by later objects."""
    width, height = size
    owner = np.full((height, width), -1)
    n_pixels = []
    for number, thing in enumerate(placed):
        solid = np.asarray(thing.pixels.getchannel("A")) > 127
        n_pixels.append(max(1, int(solid.sum())))
        top, left = max(0, thing.top), max(0, thing.left)
        inside = solid[top - thing.top :, left - thing.left :][: height - top, : width - left]
        region = owner[top : top + inside.shape[0], left : left + inside.shape[1]]
        region[inside] = number
    return [float((owner == number).sum() / n) for number, n in enumerate(n_pixels)]


def _lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Changes brightness, tint and contrast as light does, and adds a little blur and noise as a camera does."""
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))
    pixels = np.asarray(image, np.float64)
    tint = rng.uniform(0.75, 1.15) * rng.uniform(0.93, 1.07, 3)
    pixels = (pixels - 128) * rng.uniform(0.75, 1.1) + 128
    pixels = pixels * tint + rng.normal(0, rng.uniform(0, 8), pixels.shape)
    return Image.fromarray(np.uint8(np.clip(pixels, 0, 255)))


def _caption(names: list[str], rng: np.random.Generator) -> str:
    """One sentence that names every object."""
    things = [_with_article(name) for name in names]
    listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
    return str(rng.choice(_OPENINGS)) + listed


def _with_article(name: str) -> str:
    is_plural = name.endswith("s") and not name.endswith("ss") and name not in _SINGULAR_IN_S
    if is_plural or name in _UNCOUNTED:
        return name
    return f"{'an' if name[0] in 'aeioAEIO' or name.startswith(_SILENT) else 'a'} {name}"
