"""Small demo scenes in memory: few pictograms, few objects, 48 pixels wide."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.demo.scenes import draw_scene, read_pictograms

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SIDE_PX = 48
MAX_OBJECTS = 2
_DRAWN = (96, 96)


@dataclass(frozen=True, slots=True)
class SmallScenes:
    """Crops, uint8 [scenes, 48, 48, 3], and the names of each scene's objects."""

    crops: np.ndarray
    labels: list[list[str]]


def draw_scenes(n_scenes: int, seed: int, n_pictograms: int) -> SmallScenes:
    """Composes scenes of the pictograms that come first by name in steps as even as can be."""
    everything = read_pictograms(FONT)
    names = sorted(everything)[:: max(1, len(everything) // n_pictograms)][:n_pictograms]
    pictograms = {name: everything[name] for name in names}
    crops, labels = np.empty((n_scenes, SIDE_PX, SIDE_PX, 3), np.uint8), []
    for number in range(n_scenes):
        scene = draw_scene(pictograms, (seed, number), MAX_OBJECTS, _DRAWN)
        image = Image.open(BytesIO(scene.jpeg)).convert("RGB")
        crops[number] = np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX))
        labels.append(scene.labels)
    return SmallScenes(crops, labels)


def cached_scenes(folder: Path, n_scenes: int, seed: int, n_pictograms: int) -> SmallScenes:
    """As `draw_scenes`; what was drawn before is read from the folder."""
    path = folder / f"scenes-{n_scenes}-{seed}-{n_pictograms}-{MAX_OBJECTS}.npz"
    if not path.exists():
        drawn = draw_scenes(n_scenes, seed, n_pictograms)
        np.savez(path, crops=drawn.crops, labels=np.array([",".join(of_scene) for of_scene in drawn.labels]))
    with np.load(path) as stored:
        return SmallScenes(stored["crops"], [str(of_scene).split(",") for of_scene in stored["labels"]])
