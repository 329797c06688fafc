"""Images as callers of the recognizer hold them: paths, encoded bytes, PIL images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

ImageInput = Image.Image | bytes | str | os.PathLike[str]


def read_images(images: Iterable[ImageInput]) -> list[Image.Image | bytes]:
    """The images of a list, files read. Raises as `read_image` does, and TypeError for a single image."""
    if isinstance(images, str | os.PathLike | bytes | Image.Image):
        raise TypeError(f"got one {type(images).__name__}; expected a list of images, as in label([image])")
    return [read_image(image) for image in images]


def read_image(image: ImageInput) -> Image.Image | bytes:
    """An image as preprocessing takes it: a file's bytes, or the image itself.

    Raises TypeError for what is no image, ValueError for a URL, OSError for a file that cannot be read.
    """
    if isinstance(image, Image.Image | bytes):
        return image
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"got a {type(image).__name__}; expected a path, encoded bytes or a PIL image")
    if "://" in str(image):
        raise ValueError(f"{image} is a URL; read it first and give its bytes, or label it with `tagstream label`")
    return Path(image).read_bytes()
