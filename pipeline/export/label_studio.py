"""Label Studio: tasks with pre-annotations to import, and the labelling configuration that they belong to.

Labels are one prediction a task, whose model version is the run; given truth is an annotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pipeline.export.image import ExportedImage, Origin
from pipeline.export.json_list import JsonList

# Where Label Studio serves files below its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
_LOCAL_FILES = "/data/local-files/?d="
_CONTROL, _OBJECT = "labels", "image"
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_label_studio(folder: Path, images: Iterable[ExportedImage], origin: Origin) -> None:
    """Writes tasks.json and config.xml."""
    names: set[str] = set()
    with (folder / "tasks.json").open("w", encoding="utf-8") as file:
        tasks = JsonList(file)
        for image in images:
            tasks.add(_task(image, origin))
            names.update(_choices(image.labels), _choices(image.truth or ()))
        tasks.end()
        file.write("\n")
    with (folder / "config.xml").open("w", encoding="utf-8") as file:
        file.write(f'<View>\n  <Image name="{_OBJECT}" value="$image"/>\n')
        file.write(f'  <Choices name="{_CONTROL}" toName="{_OBJECT}" choice="multiple">\n')
        file.writelines(f"    <Choice value={quoteattr(name)}/>\n" for name in sorted(names))
        file.write("  </Choices>\n</View>\n")


def _task(image: ExportedImage, origin: Origin) -> dict[str, Any]:
    url = image.original if image.file is None else _LOCAL_FILES + quote(f"{origin.folder}/{image.address}")
    data = {
        "image": url,
        # As text: Label Studio's JavaScript would lose digits of 64-bit numbers.
        "image_id": str(image.image_id),
        "shard": image.shard,
        "index": image.index,
        "key": image.key,
        "caption": image.caption,
        "labels": image.labels,
    }
    task: dict[str, Any] = {"data": data}
    if image.labels:
        task["predictions"] = [{"model_version": origin.run, **_score(image), "result": _result(image, image.labels)}]
    if image.truth is not None:
        task["annotations"] = [{"ground_truth": True, "result": _result(image, image.truth)}]
    return task


def _score(image: ExportedImage) -> dict[str, float]:
    """The best label's score: the format has one a prediction, from 0 to 1. All of them are in the data."""
    best = image.labels[0]["score"]
    return {"score": best} if best is not None and 0 <= best <= 1 else {}


def _result(image: ExportedImage, labels: Sequence[Any]) -> list[dict[str, Any]]:
    if not labels:
        return []
    # No two results of a project may share an id.
    number = f"{image.image_id % 2**64:016x}-{'given' if labels is image.truth else 'predicted'}"
    value = {"choices": _choices(labels)}
    return [{"id": number, "from_name": _CONTROL, "to_name": _OBJECT, "type": "choices", "value": value}]


def _choices(labels: Sequence[Any]) -> list[str]:
    """Names as the configuration can hold them, each once."""
    return list(dict.fromkeys(_NOT_XML.sub("\ufffd", label["name"]) for label in labels))
