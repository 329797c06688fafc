"""Images as callers hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.images.image_input import read_image, read_images
from model.nxtp.recognizer import Recognizer
from tests.fixtures.corpus import jpeg


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(1))
    return path


def test_paths_bytes_and_images_are_labelled_alike(photo: Path, tiny_model: Path) -> None:
    recognizer = Recognizer.from_pretrained(tiny_model, device="cpu")
    labelled = recognizer.label([str(photo), photo, photo.read_bytes(), Image.open(photo)], top_k=3)
    assert len(labelled) == 4
    assert all(labels == labelled[0] for labels in labelled)


@pytest.mark.parametrize("image", ["photo.jpg", Path("photo.jpg"), b"...", Image.new("RGB", (2, 2))])
def test_one_image_is_told_to_be_put_into_a_list(image: Any) -> None:
    with pytest.raises(TypeError, match=r"^got one \w+; expected a list of images, as in label\(\[image\]\)$"):
        read_images(image)


def test_what_is_no_image_is_told_with_what_is_expected() -> None:
    with pytest.raises(TypeError, match=r"^got a dict; expected a path, encoded bytes or a PIL image$"):
        read_image({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^s3://bucket/a\.jpg is a URL; read it first and give its bytes"):
        read_image("s3://bucket/a.jpg")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        read_image("nowhere.jpg")
