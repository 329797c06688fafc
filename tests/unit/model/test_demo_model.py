"""The model that comes along."""

from __future__ import annotations

from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model import Recognizer
from model.fetching.refusal import ModelUnusableError
from model.folder import DEMO_MODEL, resolve_folder
from tests.fixtures.shipped_scenes import read_scenes

MAX_BYTES = 12_000_000


def test_it_is_found_by_its_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Recognizer.from_pretrained(DEMO_MODEL, device="cpu").config.n_image_tokens > 0


def test_a_folder_of_its_name_is_meant_by_its_path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / DEMO_MODEL).mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_folder(DEMO_MODEL) == Path(str(files("model"))) / "demo"
    with pytest.raises(ModelUnusableError, match="there is no model at demo; expected a folder with config"):
        resolve_folder(f"./{DEMO_MODEL}")


def test_it_is_small_enough_to_come_along() -> None:
    assert sum(path.stat().st_size for path in resolve_folder(DEMO_MODEL).iterdir()) <= MAX_BYTES


def test_its_card_tells_how_it_was_made_and_what_it_does_not_know() -> None:
    card = (resolve_folder(DEMO_MODEL) / "README.md").read_text()
    for said in ("tagstream demo-corpus", "tagstream train", "recall", "photograph"):
        assert said in card


def test_of_pictures_twice_as_wide_as_high_two_squares_find_what_the_centre_leaves_out() -> None:
    """Two scenes side by side: their centre is half of each, two squares are the scenes themselves."""
    scenes, recognizer = read_scenes()[:40], Recognizer.from_pretrained(DEMO_MODEL, device="cpu")
    pairs = list(zip(scenes[::2], scenes[1::2], strict=True))
    pictures = [side_by_side(left, right) for (left, _), (right, _) in pairs]
    truths = [{*left, *right} for (_, left), (_, right) in pairs]

    def recall(**views: Any) -> float:
        found = [{label.text for label in labels} for labels in recognizer.label(pictures, 20, **views)]
        return float(np.mean([len(names & truth) / len(truth) for names, truth in zip(found, truths, strict=True)]))

    centre, whole, lean = recall(), recall(views="whole"), recall(views="whole", view_tokens=9)
    assert whole > centre + 0.3
    assert lean > whole - 0.05


def side_by_side(*scenes: bytes) -> Image.Image:
    opened = [np.asarray(Image.open(BytesIO(scene)).convert("RGB")) for scene in scenes]
    return Image.fromarray(np.hstack(opened))
