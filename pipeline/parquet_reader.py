"""Samples of a Parquet file with image bytes.

The image is a binary column (`bytes`, `image`, `jpg`, ...) or the Hugging Face struct `image: {bytes, path}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.sample import MAX_SAMPLE_BYTES, Sample, fault, parse_description

_IMAGE_COLUMNS = ("bytes", "image", "image_bytes", "jpg", "jpeg", "png", "webp")
_KEY_COLUMNS = ("key", "__key__", "image_id", "id", "path", "file_name", "filename")
_CAPTION_COLUMNS = ("caption", "captions", "text", "txt")
_TRUTH_COLUMNS = ("labels",)
_ROWS_AT_ONCE = 64


def image_column(schema: pa.Schema, file: str) -> str:
    """Name of the column with the image bytes; SourceError where there is none."""
    for name in _IMAGE_COLUMNS:
        if name in schema.names and _holds_bytes(schema.field(name).type):
            return name
    have = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise SourceError(
        f"{file} has no image column; expected a binary column named {' or '.join(_IMAGE_COLUMNS[:2])}, or the struct "
        f"image: {{bytes, path}}; it has {have}"
    )


def read_parquet(stream: IO[bytes], file: str) -> Iterator[Sample]:
    """Every row of the file as a sample, in order; damage ends it with a fault row of empty key."""
    try:
        parquet = pq.ParquetFile(stream)
        image = image_column(parquet.schema_arrow, file)
    except (pa.ArrowInvalid, SourceError) as error:
        yield fault("", "ParquetUnreadable", f"not a readable Parquet file with images: {_sentence(error)}")
        return
    columns = _side_columns(parquet.schema_arrow)
    wanted = [image, *columns.values()]
    row, keys = 0, set[int]()
    try:
        for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted, use_threads=False):
            for values in batch.to_pylist():
                sample = _row_sample(values, image, columns, row)
                row += 1
                if sample.data is not None and hash(sample.key) in keys:
                    sample = fault(sample.key, "DuplicateKey", "the key has an image already; this one is left out")
                keys.add(hash(sample.key))
                yield sample
    except (pa.ArrowException, OverflowError) as error:
        yield fault("", "ParquetDamaged", f"the file cannot be read on behind row {row}: {_sentence(error)}")
        return
    if row == 0:
        yield fault("", "EmptyShard", "the file holds no rows")


def _holds_bytes(data_type: pa.DataType) -> bool:
    if pa.types.is_struct(data_type):
        return data_type.get_field_index("bytes") >= 0 and _holds_bytes(data_type.field("bytes").type)
    return bool(pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type))


def _side_columns(schema: pa.Schema) -> dict[str, str]:
    """Which column is the key, the caption and the truth; those that the file lacks are left out."""

    def is_text(name: str) -> bool:
        data_type = schema.field(name).type
        is_list = pa.types.is_list(data_type) or pa.types.is_large_list(data_type)
        data_type = data_type.value_type if is_list else data_type
        return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))

    def is_key(name: str) -> bool:
        return is_text(name) or bool(pa.types.is_integer(schema.field(name).type))

    roles = {"key": (_KEY_COLUMNS, is_key), "caption": (_CAPTION_COLUMNS, is_text), "truth": (_TRUTH_COLUMNS, is_text)}
    found = {}
    for role, (names, fits) in roles.items():
        match = next((name for name in names if name in schema.names and fits(name)), None)
        if match is not None:
            found[role] = match
    return found


def _row_sample(values: dict[str, Any], image: str, columns: dict[str, str], row: int) -> Sample:
    value = values[image]
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    named = values.get(columns["key"]) if "key" in columns else path
    # Rows without a name of their own are named by their place, which a Parquet file never shifts.
    key = str(named) if named not in (None, "") else f"{row:08d}"
    if data is None:
        return fault(key, "NoImage", f"column {image!r} is null in row {row}")
    if len(data) > MAX_SAMPLE_BYTES:
        return fault(key, "MemberTooLarge", f"row {row} has {len(data)} bytes; the limit is {MAX_SAMPLE_BYTES}")
    caption = values.get(columns.get("caption", ""))
    description = {
        "labels": _as_list(values.get(columns.get("truth", ""))),
        "captions" if isinstance(caption, list) else "caption": caption,
    }
    try:
        text, truth = parse_description({name: value for name, value in description.items() if value is not None})
    except ValueError as error:
        return Sample(key=key, data=data, error="SideFileUnreadable", message=f"row {row}: {error}")
    return Sample(key=key, data=data, caption=text, truth=truth)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())
