"""Samples of a Parquet file with image bytes.

The image is a binary column (`bytes`, `image`, `jpg`, ...) or the Hugging Face struct `image: {bytes, path}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.sample import Sample, fault, parse_description, too_large
from pipeline.storage.files import WatchedStream
from pipeline.text import one_line, plain

_IMAGE_COLUMNS = ("bytes", "image", "image_bytes", "jpg", "jpeg", "png", "webp")
_KEY_COLUMNS = ("key", "__key__", "image_id", "id", "path", "file_name", "filename")
_CAPTION_COLUMNS = ("caption", "captions", "text", "txt")
_TRUTH_COLUMNS = ("labels",)
_ROWS_AT_ONCE = 64
_READ_BYTES = 8 << 20
# Arrow raises OSError for damaged pages; `WatchedStream` tells it from one of the storage.
_DAMAGE = (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError)


def image_column(schema: pa.Schema, file: str) -> str:
    """Name of the column with the image bytes; SourceError where there is none."""
    for name in _IMAGE_COLUMNS:
        if schema.names.count(name) == 1 and _holds_bytes(schema.field(name).type):
            return name
    have = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise SourceError(
        f"{file} has no image column; expected a binary column named {' or '.join(_IMAGE_COLUMNS[:2])}, or the struct "
        f"image: {{bytes, path}}; it has {have}"
    )


def read_parquet(stream: IO[bytes], file: str, max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Iterator[Sample]:
    """Every row of the file as a sample, in order. Rows that cannot be read are one fault row of empty key for each
    damaged row group; larger images than `max_sample_bytes` are fault rows.
    """
    watched = WatchedStream(stream)
    try:
        # Not a whole row group at once, which may be gigabytes of images.
        parquet = pq.ParquetFile(watched, buffer_size=_READ_BYTES, pre_buffer=False)
        image = image_column(parquet.schema_arrow, file)
    except (*_DAMAGE, SourceError) as error:
        watched.raise_failure()
        yield fault("", "ParquetUnreadable", f"not a readable Parquet file with images: {one_line(error)}")
        return
    columns = _side_columns(parquet.schema_arrow)
    keys, first = set[int](), 0
    for group in range(parquet.num_row_groups):
        n_rows, n_read = parquet.metadata.row_group(group).num_rows, 0
        try:
            for n_read, values in enumerate(_row_values(parquet, group, [image, *columns.values()]), start=1):
                row = first + n_read - 1
                yield _once(_within(_row_sample(values, image, columns, row), row, max_sample_bytes), keys)
            if n_read != n_rows:
                raise pa.ArrowInvalid(f"it holds {n_read} rows, and its header says {n_rows}")
        except _DAMAGE as error:
            watched.raise_failure()
            unread = f"rows {first + n_read} to {first + n_rows - 1} (row group {group})"
            yield fault("", "ParquetDamaged", f"{unread} cannot be read: {one_line(error)}")
        first += n_rows
    if first != parquet.metadata.num_rows:
        message = f"its row groups hold {first} rows, and its header says {parquet.metadata.num_rows}"
        yield fault("", "ParquetDamaged", message)
    elif not first:
        yield fault("", "EmptyShard", "the file holds no rows")


def count_in_parquet(stream: IO[bytes], n_bytes: int, n_samples: int) -> tuple[int, int]:
    """How many samples the file's beginning holds, `n_samples` or all, and how many bytes of the file they take.

    Args:
        n_bytes: size of the file.

    Rows are taken to be of one size. A damaged file counts as one row: what is wrong with it is the reading's to judge.
    """
    watched = WatchedStream(stream)
    try:
        n_rows = pq.ParquetFile(watched).metadata.num_rows
    except (pa.ArrowException, OSError):
        watched.raise_failure()
        n_rows = 1
    n_found = min(n_rows, n_samples)
    return n_found, max(1, round(n_bytes * n_found / max(1, n_rows)))


def _row_values(parquet: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a row group; text that is no UTF-8 is given as bytes."""
    batches = parquet.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False)
    for batch in batches:
        values = [_plain_values(batch.column(name)) for name in columns]
        for row in zip(*values, strict=True):
            yield dict(zip(columns, row, strict=True))


def _plain_values(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_plain_value(scalar) for scalar in column]


def _plain_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.StructScalar):
            return {name: _plain_value(scalar[name]) for name in scalar}
        if isinstance(scalar, pa.DictionaryScalar):
            return _plain_value(scalar.value)
        if isinstance(scalar, pa.ListScalar):
            return [_plain_value(item) for item in scalar.values]
        return scalar.as_buffer().to_pybytes()


def _within(sample: Sample, row: int, max_bytes: int) -> Sample:
    """The sample, or a fault where its image is larger."""
    n_bytes = len(sample.data or b"")
    return sample if n_bytes <= max_bytes else too_large(sample.key, f"row {row}", n_bytes, max_bytes)


def _once(sample: Sample, keys: set[int]) -> Sample:
    """The sample, or a fault where its key has an image already."""
    if sample.data is None:
        return sample
    known = hash(sample.key)
    if known in keys:
        return fault(sample.key, "DuplicateKey", "the key has an image already; this one is left out")
    keys.add(known)
    return sample


def _holds_bytes(data_type: pa.DataType) -> bool:
    if pa.types.is_struct(data_type):
        return data_type.get_field_index("bytes") >= 0 and _holds_bytes(data_type.field("bytes").type)
    if pa.types.is_dictionary(data_type):
        return _holds_bytes(data_type.value_type)
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(is_kind(data_type) for is_kind in kinds)


def _holds_text(data_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(data_type):
        return _holds_text(data_type.value_type)
    return any(
        is_kind(data_type) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _holds_texts(data_type: pa.DataType) -> bool:
    lists = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return _holds_text(data_type.value_type if any(is_kind(data_type) for is_kind in lists) else data_type)


def _side_columns(schema: pa.Schema) -> dict[str, str]:
    """Which column is the key, the caption and the truth; those that the file lacks are left out."""

    def is_key(data_type: pa.DataType) -> bool:
        return _holds_text(data_type) or bool(pa.types.is_integer(data_type))

    roles = {
        "key": (_KEY_COLUMNS, is_key),
        "caption": (_CAPTION_COLUMNS, _holds_texts),
        "truth": (_TRUTH_COLUMNS, _holds_texts),
    }
    found = {}
    for role, (names, fits) in roles.items():
        match = next((name for name in names if schema.names.count(name) == 1 and fits(schema.field(name).type)), None)
        if match is not None:
            found[role] = match
    return found


def _row_sample(values: dict[str, Any], image: str, columns: dict[str, str], row: int) -> Sample:
    value = values[image]
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    named = values.get(columns["key"]) if "key" in columns else path
    if isinstance(named, bytes):
        named = named.decode("utf-8", "backslashreplace")
    # Rows without a name of their own are named by their number, which a Parquet file never shifts.
    key = str(named) if named not in (None, "") else f"{row:08d}"
    if data is None:
        return fault(key, "NoImage", f"column {image!r} is null in row {row}")
    caption = values.get(columns.get("caption", ""))
    description = {
        "labels": _as_list(values.get(columns.get("truth", ""))),
        "captions" if isinstance(caption, list) else "caption": caption,
    }
    try:
        text, truth = parse_description({name: value for name, value in description.items() if value is not None})
    except ValueError as error:
        return Sample(key=key, data=data, error="SideFileUnreadable", message=plain(f"row {row}: {error}"))
    return Sample(key=key, data=data, caption=text, truth=truth)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | bytes) else value
