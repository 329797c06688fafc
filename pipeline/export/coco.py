"""COCO annotations of whole images.

COCO itself has boxes, masks and captions. A label of a whole image is an annotation with a category and no box, as
Datumaro's `labels` task and CVAT write it; pycocotools reads it like any other. Score and `attributes` are Datumaro's.
The area is that of the image, 0 where its size is not known: readers that choose annotations by it expect one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from pipeline.export.image import ExportedImage, Origin
from pipeline.export.json_list import JsonList, to_json

_FOLDER = "annotations"


def write_coco(folder: Path, images: Iterable[ExportedImage], origin: Origin) -> None:
    """Writes annotations/labels_predictions.json and, where any truth was given, annotations/labels_truth.json.

    `file_name` is relative to `data`. Both files number images and categories alike; the truth holds the images that
    have one.
    """
    annotations = folder / _FOLDER
    annotations.mkdir()
    categories: dict[str, int] = {}
    with ExitStack() as stack:
        streams = [
            stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", dir=annotations)) for _ in range(4)
        ]
        predictions, truth = _Pieces(*streams[:2]), _Pieces(*streams[2:])
        for number, image in enumerate(images, start=1):
            described = _describe(image, number)
            predictions.add(described, [_prediction(label, categories) for label in image.labels])
            if image.truth is not None:
                truth.add(described, [_category(label["name"], categories) for label in image.truth])
        predictions.write(annotations / "labels_predictions.json", categories, origin)
        if truth.n_images:
            truth.write(annotations / "labels_truth.json", categories, origin)


class _Pieces:
    """A file in the making: what comes after one another in it grows side by side."""

    def __init__(self, images: IO[str], annotations: IO[str]) -> None:
        self._streams = {"images": images, "annotations": annotations}
        self._images, self._annotations = JsonList(images), JsonList(annotations)

    @property
    def n_images(self) -> int:
        return len(self._images)

    def add(self, image: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> None:
        self._images.add(image)
        of_whole = {"iscrowd": 0, "area": image.get("width", 0) * image.get("height", 0)}
        for annotation in annotations:
            ids = {"id": len(self._annotations) + 1, "image_id": image["id"]}
            self._annotations.add({**ids, **annotation, **of_whole})

    def write(self, path: Path, categories: dict[str, int], origin: Origin) -> None:
        self._images.end()
        self._annotations.end()
        listed = [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()]
        with path.open("w", encoding="utf-8") as file:
            file.write(f'{{"info": {to_json({"description": origin.description})},\n"licenses": []')
            for name, stream in self._streams.items():
                file.write(f',\n"{name}": ')
                stream.seek(0)
                shutil.copyfileobj(stream, file)
            file.write(f',\n"categories": {to_json(listed)}}}\n')


def _describe(image: ExportedImage, number: int) -> dict[str, Any]:
    # The store's 64-bit ids would lose digits in JavaScript; COCO's are small numbers.
    described = {
        "id": number,
        "file_name": image.original if image.file is None else image.file,
        "width": image.width,
        "height": image.height,
        "shard": image.shard,
        "key": image.key,
        "caption": image.caption,
    }
    return {name: value for name, value in described.items() if value is not None}


def _prediction(label: Any, categories: dict[str, int]) -> dict[str, Any]:
    score = {} if label["score"] is None else {"score": label["score"]}
    attributes = {"label": label["label"], "rank": label["rank"]}
    return {**_category(label["name"], categories), **score, "attributes": attributes}


def _category(name: str, categories: dict[str, int]) -> dict[str, Any]:
    return {"category_id": categories.setdefault(name, len(categories) + 1)}
