"""Telling photographs from the scenes that the demo model knows."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from model.demo_scenes import describe_strangers, is_demo_folder, is_scene
from model.folder import DEMO_MODEL, resolve_folder
from model.images.preprocessing import ImagePreprocessor
from tests.fixtures.checkout import ROOT

DEMO = resolve_folder(DEMO_MODEL)


def crops(folder: Path) -> list[np.ndarray]:
    """The demo model's views of all images in a folder of tars."""
    preprocessor, found = ImagePreprocessor.from_pretrained(DEMO), []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            files = [archive.extractfile(member) for member in archive if member.name.endswith(".jpg")]
            found += [preprocessor.view(file.read()) for file in files if file is not None]
    return found


def test_scenes_are_known_as_such() -> None:
    # 0.5 % of 5,000 fresh scenes are not; these are 200.
    assert sum(not is_scene(crop) for crop in crops(ROOT / "jobs" / "demo" / "shards")) <= 4


def test_photographs_are_no_scenes(coco_mini: Path) -> None:
    photographs = crops(coco_mini)
    assert sum(not is_scene(crop) for crop in photographs) > 0.9 * len(photographs)


def test_a_grey_texture_is_no_scene_and_a_plain_colour_is_nothing_that_can_be_told() -> None:
    texture = np.random.default_rng(0).integers(0, 256, (96, 96, 1)).repeat(3, axis=2).astype(np.uint8)
    assert not is_scene(texture)
    assert is_scene(np.full((96, 96, 3), (200, 40, 40), np.uint8))


def test_the_model_that_comes_along_is_known_by_its_content(tmp_path: Path, tiny_model: Path) -> None:
    copy = Path(shutil.copytree(DEMO, tmp_path / "of-another-name"))
    assert is_demo_folder(copy)
    assert not is_demo_folder(tiny_model)


@pytest.mark.parametrize(
    ("n_strange", "n_images", "start"),
    [(0, 0, None), (0, 5, None), (2, 200, None), (1, 1, "the image does not"), (76, 80, "76 of 80 images do not")],
)
def test_images_that_are_no_scenes_are_told_where_chance_does_not_explain_them(
    n_strange: int, n_images: int, start: str | None
) -> None:
    said = describe_strangers(n_strange, n_images)
    assert said is None if start is None else str(said).startswith(f"{start} look like the composed scenes")
