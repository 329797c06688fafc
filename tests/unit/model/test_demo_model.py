"""The model that comes along."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from model import Recognizer
from model.fetching.refusal import ModelUnusableError
from model.folder import DEMO_MODEL, resolve_folder

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
