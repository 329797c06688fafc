"""A FiftyOne dataset: `fiftyone.Dataset.from_dir(folder, fiftyone.types.FiftyOneDataset)`.

It is written as the format's first version, which FiftyOne goes on reading: samples say what they are, so that no
schema of its database is needed. Labels are Classifications `predictions`, given truth `ground_truth`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.export.image import ExportedImage, Origin
from pipeline.export.json_list import JsonList, to_json


def write_fiftyone(folder: Path, images: Iterable[ExportedImage], origin: Origin) -> None:
    """Writes metadata.json and samples.json."""
    info = {"description": origin.description, "run": origin.run, "vocabulary": origin.vocabulary}
    metadata = {"name": origin.run, "media_type": "image", "info": info}
    (folder / "metadata.json").write_text(to_json(metadata) + "\n", "utf-8")
    with (folder / "samples.json").open("w", encoding="utf-8") as file:
        file.write('{"samples": ')
        samples = JsonList(file)
        for image in images:
            samples.add(_sample(image))
        samples.end()
        file.write("}\n")


def _sample(image: ExportedImage) -> dict[str, Any]:
    sample = {
        "filepath": image.address,
        "_media_type": "image",
        "tags": [],
        "metadata": _document("ImageMetadata", size_bytes=image.n_bytes, width=image.width, height=image.height),
        # As text: the App's JavaScript would lose digits of 64-bit numbers.
        "image_id": str(image.image_id),
        "shard": image.shard,
        "index": image.index,
        "key": image.key,
        "caption": image.caption,
        "predictions": _classifications(
            _document(
                "Classification",
                label=label["name"],
                confidence=label["score"],
                raw_label=label["label"],
                rank=label["rank"],
            )
            for label in image.labels
        ),
    }
    if image.truth is not None:
        sample["ground_truth"] = _classifications(
            _document("Classification", label=label["name"], raw_label=label["label"]) for label in image.truth
        )
    return sample


def _classifications(labels: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return _document("Classifications", classifications=list(labels))


def _document(kind: str, **values: Any) -> dict[str, Any]:
    return {"_cls": kind, **values}
