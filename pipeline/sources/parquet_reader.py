"""Samples of a Parquet file with image bytes.

The image is a binary column (`bytes`, `image`, `jpg`, ...), the Hugging Face struct `image: {bytes, path}`, or a list
of either: each image of a list is a sample. Rows are read a few at a time, by what they weigh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.annotations.side_files import read_fields
from pipeline.errors import SourceError, StorageError
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.parquet_columns import FoundColumns, find_columns, images_of
from pipeline.sources.sample import Sample, fault, make_sample, too_large
from pipeline.sources.shard import ColumnNames, Shard
from pipeline.storage.files import WatchedStream, open_filesystem, storage_errors
from pipeline.text import one_line

_MAX_ROWS_AT_ONCE = 64
# Of rows that are read at once, as far as the file's footer tells.
_MAX_BYTES_AT_ONCE = 64 << 20
_N_ROWS_LOOKED_AT = 8
_READ_BYTES = 8 << 20
# Arrow raises OSError for damaged pages; `WatchedStream` tells it from one of the storage.
_DAMAGE = (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError)


def read_parquet(
    stream: IO[bytes], file: str, max_sample_bytes: int = MAX_SAMPLE_BYTES, columns: ColumnNames | None = None
) -> Iterator[Sample]:
    """Every image of the file as a sample, in order. Rows that cannot be read are one fault row of empty key for each
    damaged row group; larger images than `max_sample_bytes` are fault rows.

    Args:
        file: what messages call the file.
        columns: what the columns are, where that was asked for.
    """
    watched = WatchedStream(stream)
    try:
        parquet = _open(watched)
        found = _find_columns(parquet, file, columns or ColumnNames())
    except (*_DAMAGE, SourceError) as error:
        watched.raise_failure()
        yield fault("", "ParquetUnreadable", f"not a readable Parquet file with images: {one_line(error)}")
        return
    keys, first = _Keys(), 0
    for group in range(parquet.num_row_groups):
        n_rows, n_read = parquet.metadata.row_group(group).num_rows, 0
        try:
            for n_read, values in enumerate(_row_values(parquet, group, found), start=1):
                for sample in _row_samples(values, found, first + n_read - 1, max_sample_bytes):
                    yield keys.made_unique(sample)
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


def check_columns(shards: Sequence[Shard], columns: ColumnNames) -> list[str]:
    """Looks into some Parquet files whether they hold images. Returns what else a user should know of their columns.

    Args:
        columns: what the columns are, where that was asked for.

    Raises SourceError where none of those that were looked into holds any, or a column that was asked for is not there.
    What is damaged, or cannot be read, is the reading's to judge.
    """
    files = [shard for shard in shards if shard.kind == "parquet"]
    problem: SourceError | None = None
    for shard in dict.fromkeys((*files[:1], *files[len(files) // 2 :][:1], *files[-1:])):
        try:
            return _look_into(shard, columns)
        except SourceError as error:
            problem = problem or error
        except StorageError:
            # The job meets it again, and does the rest first.
            continue
    if problem is not None:
        raise problem
    return []


def _look_into(shard: Shard, columns: ColumnNames) -> list[str]:
    filesystem, path = open_filesystem(shard.url)
    with storage_errors(f"read shard {shard.name} ({shard.url})"), filesystem.open(path, "rb") as stream:
        watched = WatchedStream(stream)
        try:
            parquet = _open(watched)
            found = _find_columns(parquet, shard.url, columns)
            path_alone = _path_alone(parquet, found)
        except _DAMAGE:
            watched.raise_failure()
            return []
    if path_alone is not None:
        raise SourceError(
            f"{shard.url} holds no images: the column {found.image} names files ({path_alone[:80]}) and has no bytes; "
            "label the folder of these files, or embed them (datasets: embed_external_files)"
        )
    if not found.other_images:
        return []
    others = ", ".join(found.other_images)
    return [f"images of the column {found.image} are labelled; {others} may hold images, too (--image-column, --run)"]


def _path_alone(parquet: pq.ParquetFile, found: FoundColumns) -> str | None:
    """The first path of an image column without any bytes; None of any other."""
    values = _first_values(parquet, found.image)
    images = [image for value in values for image in images_of(value)]
    if any(data is not None for data, _ in images):
        return None
    return next((str(path) for _, path in images if path), None)


def _open(stream: Any) -> pq.ParquetFile:
    # Not a whole row group at once, which may be gigabytes of images.
    return pq.ParquetFile(stream, buffer_size=_READ_BYTES, pre_buffer=False)


def _find_columns(parquet: pq.ParquetFile, file: str, columns: ColumnNames) -> FoundColumns:
    return find_columns(parquet.schema_arrow, file, columns, lambda name: _first_values(parquet, name))


def _first_values(parquet: pq.ParquetFile, column: str) -> list[Any]:
    """The values of a column in the file's first rows; none where they cannot be read."""
    if not parquet.metadata.num_rows:
        return []
    n_rows = min(_N_ROWS_LOOKED_AT, _rows_at_once(parquet, 0, [column]))
    try:
        batch = next(parquet.iter_batches(n_rows, columns=[column], use_threads=False), None)
        return [] if batch is None else _plain_values(batch.column(column))
    except (pa.ArrowException, OverflowError):
        return []


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


def _row_values(parquet: pq.ParquetFile, group: int, found: FoundColumns) -> Iterator[dict[str, Any]]:
    """The rows of a row group; text that is no UTF-8 is given as bytes."""
    columns = [found.image, *found.sides]
    n_rows = _rows_at_once(parquet, group, columns)
    for batch in parquet.iter_batches(n_rows, row_groups=[group], columns=columns, use_threads=False):
        images = batch.column(found.image)
        sides = {name: _plain_values(batch.column(name)) for name in found.sides}
        for row in range(batch.num_rows):
            # One by one: they are copies.
            yield {found.image: _plain_value(images[row]), **{name: values[row] for name, values in sides.items()}}


def _rows_at_once(parquet: pq.ParquetFile, group: int, columns: Sequence[str]) -> int:
    """How many rows of a row group to read at once: its mean row tells how many fit."""
    described = parquet.metadata.row_group(group)
    chunks = (described.column(number) for number in range(described.num_columns))
    wanted = set(columns)
    n_bytes = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in wanted)
    a_row = n_bytes / max(1, described.num_rows)
    return max(1, min(_MAX_ROWS_AT_ONCE, int(_MAX_BYTES_AT_ONCE / max(1, a_row))))


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


def _row_samples(values: dict[str, Any], found: FoundColumns, row: int, max_bytes: int) -> Iterator[Sample]:
    """The samples of a row: one an image; a row without any is a fault."""
    value = values[found.image]
    images = list(images_of(value)) or [(None, None)]
    named = values.get(found.key) if found.key is not None else None
    for number, (data, path) in enumerate(images):
        key = _key(path if found.key is None else named, row)
        # The images of a list are told apart by their place, unless each is named by its own path.
        if isinstance(value, list) and len(images) > 1 and (found.key is not None or not path):
            key = f"{key}.{number}"
        if data is None:
            where = f"names the file {str(path)[:80]} and has no bytes" if path else "is null"
            yield fault(key, "NoImage", f"column {found.image!r} {where} in row {row}")
        elif len(data) > max_bytes:
            yield too_large(key, f"row {row}", len(data), max_bytes)
        else:
            yield _described(key, data, values, found, row)


def _key(named: Any, row: int) -> str:
    if isinstance(named, bytes):
        named = named.decode("utf-8", "backslashreplace")
    # Rows without a name of their own are named by their number, which a Parquet file never shifts.
    return str(named) if named not in (None, "") else f"{row:08d}"


def _described(key: str, data: bytes, values: dict[str, Any], found: FoundColumns, row: int) -> Sample:
    caption = values.get(found.caption) if found.caption is not None else None
    truth = found.truth.labels(values.get(found.truth.column)) if found.truth is not None else None
    described = read_fields({"labels": truth, "caption": caption})
    described.problems = [f"row {row}: {problem}" for problem in described.problems]
    return make_sample(key, data, described)


class _Keys:
    """Gives every image a key of its own: two different images of one key are two samples."""

    def __init__(self) -> None:
        self._contents: dict[int, int] = {}
        """Hash of each key that an image has, with a hash of the image."""

    def made_unique(self, sample: Sample) -> Sample:
        """The sample under its key, or `key~2`, `key~3`, ...; a fault where the same image has the key already."""
        if sample.data is None:
            return sample
        content = hash(sample.data)
        for key in chain((sample.key,), (f"{sample.key}~{number}" for number in count(2))):
            known = self._contents.get(hash(key))
            if known is None:
                self._contents[hash(key)] = content
                return sample if key == sample.key else replace(sample, key=key)
            if known == content:
                return fault(sample.key, "DuplicateKey", "the same image has this key already; it is left out here")
        raise AssertionError("count() never ends")
