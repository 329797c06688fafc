"""A Hugging Face dataset of Parquet files: `datasets.load_dataset(folder)`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.image import DATA_FOLDER, ExportedImage, Origin

_LABEL = pa.struct([("name", pa.string()), ("label", pa.string()), ("score", pa.float32()), ("rank", pa.int16())])
_COLUMNS = [
    pa.field("image_id", pa.int64()),
    pa.field("shard", pa.string()),
    pa.field("index", pa.int32()),
    pa.field("key", pa.string()),
    pa.field("original", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("caption", pa.string()),
    pa.field("labels", pa.list_(_LABEL)),
    pa.field("truth", pa.list_(pa.string())),
]
_IMAGE = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_ROWS_AT_ONCE = 1000
# The library reads and shows images a row group at a time.
_IMAGES_AT_ONCE = 100
_FILE_BYTES = 500 << 20


def write_hugging_face(folder: Path, images: Iterable[ExportedImage], origin: Origin) -> None:
    """Writes data/train-*.parquet, files of about 500 MB, with the images in them where they come along; README.md."""
    (folder / DATA_FOLDER).mkdir()
    images = iter(images)
    first = next(images, None)
    holds_images = first is not None and first.data is not None
    schema = _schema(holds_images)
    tables = _tables(chain([] if first is None else [first], images), schema, holds_images)
    table, number = next(tables, schema.empty_table()), 0
    while table is not None:
        path = folder / DATA_FOLDER / f"train-{number:05d}.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            writer.write_table(table)
            while (table := next(tables, None)) is not None and path.stat().st_size < _FILE_BYTES:
                writer.write_table(table)
        number += 1
    (folder / "README.md").write_text(_card(origin), "utf-8")


def _tables(images: Iterator[ExportedImage], schema: pa.Schema, holds_images: bool) -> Iterator[pa.Table]:
    size = _IMAGES_AT_ONCE if holds_images else _ROWS_AT_ONCE
    while batch := list(islice(images, size)):
        yield pa.Table.from_pylist([_row(image) for image in batch], schema)


def _row(image: ExportedImage) -> dict[str, Any]:
    row = {field.name: getattr(image, field.name) for field in _COLUMNS}
    row["truth"] = None if image.truth is None else [label["name"] for label in image.truth]
    row["image"] = {"bytes": image.data, "path": image.file}
    return row


def _schema(holds_images: bool) -> pa.Schema:
    """The columns, and what the library has to know of them: that bytes and path are an image."""
    if not holds_images:
        return pa.schema(_COLUMNS)
    columns = [_IMAGE, *_COLUMNS]
    features = {"image": {"_type": "Image"}} | {field.name: _feature(field.type) for field in _COLUMNS}
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(data_type: pa.DataType) -> Any:
    if pa.types.is_struct(data_type):
        return {field.name: _feature(field.type) for field in data_type}
    if pa.types.is_list(data_type):
        return [_feature(data_type.value_type)]
    return {"dtype": "float32" if pa.types.is_float32(data_type) else str(data_type), "_type": "Value"}


def _card(origin: Origin) -> str:
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: {DATA_FOLDER}/train-*.parquet
---

# {origin.folder}

Images with {origin.description}. `labels` are best first: `name` in the vocabulary, `label` as the model spelled
it, `score`, `rank`. `truth` are the names of given labels, null where none were given.
"""
