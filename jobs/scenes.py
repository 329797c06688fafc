"""Drawn scenes with known content: the images that the demo labels.

They are made, not photographed, so that they can ship with the project under its own licence. A scene is a place with a
few things in it; its labels are the names of all of them.
"""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import webdataset as wds
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw

WIDTH, HEIGHT = 320, 240
# Drawn larger and scaled down, for smooth edges.
_OVERSAMPLING = 2
_JPEG_QUALITY = 85
_COLOURS: dict[str, Colour] = {
    "red": (205, 45, 40),
    "blue": (40, 90, 200),
    "yellow": (240, 205, 60),
    "green": (50, 140, 60),
    "orange": (235, 130, 40),
    "purple": (130, 60, 160),
    "white": (240, 240, 240),
    "black": (40, 40, 45),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn image with what is in it."""

    image: Image.Image
    labels: list[str]
    caption: str


def draw_scene(seed: int) -> Scene:
    """A scene that depends on nothing but its seed."""
    rng = random.Random(seed)
    place = rng.choice(sorted(_PLACES))
    upper, lower, shown = _PLACES[place]
    size = (WIDTH * _OVERSAMPLING, HEIGHT * _OVERSAMPLING)
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    horizon = round(size[1] * rng.uniform(0.5, 0.65))
    _fill_gradient(draw, (0, 0, size[0], horizon), upper)
    _fill_gradient(draw, (0, horizon, size[0], size[1]), lower)
    labels = list(shown)
    phrases = []
    things = rng.sample(sorted(_THINGS), k=rng.randint(1, 4))
    for thing, slot in zip(things, rng.sample(range(4), k=len(things)), strict=True):
        drawer, is_aloft = _THINGS[thing]
        scale = size[1] * rng.uniform(0.14, 0.24)
        x = size[0] * (slot + rng.uniform(0.35, 0.65)) / 4
        y = horizon * rng.uniform(0.25, 0.6) if is_aloft else horizon + (size[1] - horizon) * rng.uniform(0.1, 0.5)
        colour = rng.choice(sorted(_COLOURS))
        drawer(draw, x, y, scale, _COLOURS[colour])
        labels.append(thing)
        phrases.append(_with_article(f"{colour} {thing}" if thing in _COLOURED else thing))
    image = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).filter(
        ImageFilter.GaussianBlur(rng.uniform(0, 0.6))
    )
    return Scene(image, sorted(labels), f"{' and '.join(phrases)} {place}")


def write_shards(folder: Path, n_shards: int, n_samples: int, seed: int) -> None:
    """Writes scenes as WebDataset tars `scenes-00000.tar`, ...; the same seed gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(n_shards):
        with wds.TarWriter(str(folder / f"scenes-{shard:05d}.tar"), mtime=0, encoder=False) as writer:
            for place in range(n_samples):
                number = shard * n_samples + place
                scene = draw_scene(seed * 1_000_003 + number)
                jpeg = io.BytesIO()
                scene.image.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
                description = {"captions": [scene.caption], "labels": scene.labels}
                writer.write(
                    {
                        "__key__": f"scene-{number:06d}",
                        "jpg": jpeg.getvalue(),
                        "txt": scene.caption.encode(),
                        "json": json.dumps(description).encode(),
                    }
                )


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _fill_gradient(draw: Draw, box: tuple[int, int, int, int], colours: tuple[Colour, Colour]) -> None:
    left, top, right, bottom = box
    for y in range(top, bottom):
        share = (y - top) / max(1, bottom - top)
        mixed = tuple(round(a + (b - a) * share) for a, b in zip(*colours, strict=True))
        draw.line((left, y, right, y), fill=mixed)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(part * factor)) for part in colour)
    return red, green, blue


def _ball(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=colour, outline=_shade(colour, 0.6), width=3)
    draw.arc((x - r / 4, y - r / 2, x + r / 4, y + r / 2), 0, 360, fill=_shade(colour, 0.6), width=3)


def _house(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.rectangle((x - r * 0.7, y - r * 0.9, x + r * 0.7, y), fill=(225, 210, 185))
    draw.polygon([(x - r * 0.9, y - r * 0.9), (x, y - r * 1.6), (x + r * 0.9, y - r * 0.9)], fill=colour)
    draw.rectangle((x - r * 0.15, y - r * 0.5, x + r * 0.15, y), fill=(95, 60, 40))
    draw.rectangle((x + r * 0.3, y - r * 0.7, x + r * 0.55, y - r * 0.45), fill=(150, 200, 235))


def _tree(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.rectangle((x - r * 0.12, y - r * 0.9, x + r * 0.12, y), fill=(100, 70, 45))
    for dx, dy in ((-0.35, -1.0), (0.35, -1.0), (0.0, -1.4)):
        box = (x + (dx - 0.5) * r, y + (dy - 0.5) * r, x + (dx + 0.5) * r, y + (dy + 0.5) * r)
        draw.ellipse(box, fill=(45, 120, 50))


def _car(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.rounded_rectangle((x - r, y - r * 0.6, x + r, y - r * 0.15), radius=r * 0.12, fill=colour)
    draw.polygon(
        [(x - r * 0.6, y - r * 0.6), (x - r * 0.35, y - r), (x + r * 0.4, y - r), (x + r * 0.65, y - r * 0.6)],
        fill=_shade(colour, 0.8),
    )
    draw.rectangle((x - r * 0.3, y - r * 0.92, x + r * 0.3, y - r * 0.65), fill=(170, 215, 240))
    for wheel in (-0.55, 0.55):
        box = (x + (wheel - 0.22) * r, y - r * 0.35, x + (wheel + 0.22) * r, y + r * 0.09)
        draw.ellipse(box, fill=(30, 30, 30), outline=(140, 140, 140), width=4)


def _boat(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.polygon([(x - r, y - r * 0.4), (x + r, y - r * 0.4), (x + r * 0.6, y), (x - r * 0.6, y)], fill=colour)
    draw.rectangle((x - 3, y - r * 1.6, x + 3, y - r * 0.4), fill=(90, 65, 45))
    draw.polygon([(x + 6, y - r * 1.55), (x + 6, y - r * 0.5), (x + r * 0.8, y - r * 0.5)], fill=(245, 245, 240))


def _flower(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.line((x, y, x, y - r), fill=(40, 120, 45), width=6)
    for petal in range(6):
        angle = petal * math.pi / 3
        cx, cy = x + math.cos(angle) * r * 0.25, y - r + math.sin(angle) * r * 0.25
        draw.ellipse((cx - r * 0.2, cy - r * 0.2, cx + r * 0.2, cy + r * 0.2), fill=colour)
    draw.ellipse((x - r * 0.15, y - r * 1.15, x + r * 0.15, y - r * 0.85), fill=(250, 200, 40))


def _cloud(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    for dx, dy, size in ((-0.6, 0.1, 0.5), (0.0, -0.1, 0.65), (0.6, 0.1, 0.5)):
        draw.ellipse(
            (x + (dx - size) * r, y + (dy - size * 0.6) * r, x + (dx + size) * r, y + (dy + size * 0.6) * r),
            fill=(240, 240, 245),
        )


def _sun(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    for ray in range(12):
        angle = ray * math.pi / 6
        end = (x + math.cos(angle) * r * 0.8, y + math.sin(angle) * r * 0.8)
        draw.line((x, y, *end), fill=(255, 215, 90), width=5)
    draw.ellipse((x - r * 0.45, y - r * 0.45, x + r * 0.45, y + r * 0.45), fill=(255, 205, 50))


def _kite(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.line((x, y + r * 0.6, x - r * 0.5, y + r * 1.5), fill=(60, 60, 60), width=3)
    corners = [(x, y - r * 0.7), (x + r * 0.5, y), (x, y + r * 0.6), (x - r * 0.5, y)]
    draw.polygon(corners, fill=colour, outline=_shade(colour, 0.6))
    draw.line((*corners[0], *corners[2]), fill=_shade(colour, 0.6), width=3)


def _balloon(draw: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.line((x, y + r * 0.6, x, y + r * 1.4), fill=(70, 70, 70), width=3)
    draw.ellipse((x - r * 0.5, y - r * 0.6, x + r * 0.5, y + r * 0.6), fill=colour)
    draw.ellipse((x - r * 0.25, y - r * 0.4, x - r * 0.05, y - r * 0.1), fill=_shade(colour, 1.5))


# Name -> (how it is drawn, whether it hangs in the air).
_THINGS: dict[str, tuple[Callable[[Draw, float, float, float, Colour], None], bool]] = {
    "ball": (_ball, False),
    "balloon": (_balloon, True),
    "boat": (_boat, False),
    "car": (_car, False),
    "cloud": (_cloud, True),
    "flower": (_flower, False),
    "house": (_house, False),
    "kite": (_kite, True),
    "sun": (_sun, True),
    "tree": (_tree, False),
}
_COLOURED = frozenset({"ball", "balloon", "boat", "car", "flower", "house", "kite"})
# Phrase -> (colours above the horizon, colours below it, what the place itself shows).
_PLACES: dict[str, tuple[tuple[Colour, Colour], tuple[Colour, Colour], tuple[str, ...]]] = {
    "on the grass": (((110, 170, 235), (200, 225, 245)), ((95, 165, 75), (60, 120, 50)), ("grass", "sky")),
    "on the beach": (((90, 180, 230), (215, 235, 240)), ((235, 215, 165), (205, 175, 120)), ("beach", "sky")),
    "by the sea": (((120, 175, 225), (205, 225, 240)), ((45, 115, 170), (20, 70, 120)), ("sea", "sky")),
    "in the snow": (((165, 185, 210), (220, 228, 238)), ((245, 248, 252), (210, 220, 235)), ("sky", "snow")),
    "at night": (((15, 20, 50), (40, 50, 95)), ((30, 45, 40), (15, 25, 25)), ("night", "sky")),
    "in the desert": (((150, 195, 235), (240, 225, 200)), ((225, 175, 105), (185, 130, 70)), ("desert", "sky")),
}
