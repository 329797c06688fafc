"""Demo scenes in memory: what a recognizer sees of each, and the names of its objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.demo.scenes import MAX_OBJECTS, SCENE_PX, draw_scene, pictogram_names, read_pictograms

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SMALL_PX = 48

View = Callable[[bytes], np.ndarray]
"""What a recognizer sees of a JPEG: a square crop, uint8 [H, W, 3]."""


@dataclass(frozen=True, slots=True)
class Scenes:
    """Crops, uint8 [scenes, H, W, 3], and the names of each scene's objects."""

    crops: np.ndarray
    labels: list[list[str]]


@dataclass(frozen=True, slots=True)
class Composition:
    """Which scenes are drawn, and how they are seen."""

    n_pictograms: int
    """Those that come first by name, in steps as even as can be."""
    max_objects: int
    drawn_px: int
    view: View


def small(n_pictograms: int) -> Composition:
    """Few pictograms, one or two objects, 48 pixels wide."""
    return Composition(n_pictograms, max_objects=2, drawn_px=2 * SMALL_PX, view=_halved)


def full(view: View) -> Composition:
    """The scenes of the demo corpus, as a model sees them."""
    return Composition(len(pictogram_names()), MAX_OBJECTS, SCENE_PX, view)


def _halved(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(jpeg)).convert("RGB").resize((SMALL_PX, SMALL_PX), Image.Resampling.BOX))


def draw_scenes(n_scenes: int, seed: int, composition: Composition) -> Scenes:
    """Composes scenes; the same number of the same seed is the same scene."""
    everything = read_pictograms(FONT)
    step = max(1, len(everything) // composition.n_pictograms)
    pictograms = {name: everything[name] for name in sorted(everything)[::step][: composition.n_pictograms]}
    size = (composition.drawn_px, composition.drawn_px)
    crops, labels = [], []
    for number in range(n_scenes):
        scene = draw_scene(pictograms, (seed, number), composition.max_objects, size)
        crops.append(composition.view(scene.jpeg))
        labels.append(scene.labels)
    return Scenes(np.stack(crops), labels)


def cached_scenes(folder: Path, n_scenes: int, seed: int, composition: Composition) -> Scenes:
    """As `draw_scenes`; what was drawn before is read from the folder."""
    path = folder / f"scenes-{n_scenes}-{seed}-{composition.n_pictograms}-{composition.max_objects}.npz"
    if not path.exists():
        drawn = draw_scenes(n_scenes, seed, composition)
        np.savez(path, crops=drawn.crops, labels=np.array([",".join(of_scene) for of_scene in drawn.labels]))
    with np.load(path) as stored:
        return Scenes(stored["crops"], [str(of_scene).split(",") for of_scene in stored["labels"]])
