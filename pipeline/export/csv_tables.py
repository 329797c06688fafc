"""Plain tables, as RFC 4180 has CSV: every text comes back as it was."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.export.image import ExportedImage, Origin

_COLUMNS = {
    "images": ("image_id", "shard", "index", "key", "file", "width", "height", "caption"),
    "labels": ("image_id", "key", "rank", "name", "label", "score"),
    "truth": ("image_id", "key", "name", "label"),
}


def write_csv(folder: Path, images: Iterable[ExportedImage], origin: Origin) -> None:
    """Writes images.csv, labels.csv and truth.csv: one row an image, a label and a given label."""
    with ExitStack() as stack:
        tables = {}
        for name, columns in _COLUMNS.items():
            file = stack.enter_context((folder / f"{name}.csv").open("w", encoding="utf-8", newline=""))
            tables[name] = csv.DictWriter(file, columns, lineterminator="\r\n")
            tables[name].writeheader()
        for image in images:
            of_image: dict[str, Any] = {"image_id": image.image_id, "key": image.key}
            described = {name: getattr(image, name) for name in _COLUMNS["images"] if name != "file"}
            tables["images"].writerow({**described, "file": image.address})
            tables["labels"].writerows({**of_image, **label} for label in image.labels)
            tables["truth"].writerows({**of_image, **label} for label in image.truth or ())
