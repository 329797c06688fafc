"""One Parquet file of a store: its rows, what it says of itself, and the digest that shows damage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.storage.files import Filesystem, storage_errors
from pipeline.store.digest import has_other_digest, reserve_digest, with_digest
from pipeline.store.ownership import ShardVersion
from schemas import SCHEMA_VERSION

_METADATA_PREFIX = "tagstream."
# zstd prepares itself anew for each column of a file: with few rows that takes twice as long, and saves a twentieth.
_LEAST_ROWS_FOR_ZSTD = 1_000


def describe_file(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as a file's Parquet metadata keeps them."""
    return {
        f"{_METADATA_PREFIX}{name}": "" if value is None else str(value)
        for name, value in {"schema_version": SCHEMA_VERSION, **values}.items()
    }


def read_described(file: pq.ParquetFile) -> dict[str, str]:
    """What a file says of itself: the values that `describe_file` was given, as text."""
    metadata = file.schema_arrow.metadata or {}
    return {
        key.decode().removeprefix(_METADATA_PREFIX): value.decode()
        for key, value in metadata.items()
        if key.startswith(_METADATA_PREFIX.encode())
    }


def version_of(described: Mapping[str, str]) -> ShardVersion:
    """The version of the source that a shard's own file says it was made from."""
    size = described.get("source_size")
    return ShardVersion(int(size) if size else None, described.get("source_etag") or None)


def encode_file(table: pa.Table, described: Mapping[str, str]) -> bytes:
    """A whole file with these rows, this metadata and a digest of all its bytes."""
    sink = pa.BufferOutputStream()
    compression = "zstd" if table.num_rows >= _LEAST_ROWS_FOR_ZSTD else "snappy"
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **described})
    with pq.ParquetWriter(sink, table.schema, compression=compression) as writer:
        writer.write_table(table)
        mark = reserve_digest(writer)
    return with_digest(sink.getvalue().to_pybytes(), mark)


def read_file(filesystem: Filesystem, path: str, dictionaries: Sequence[str] = ()) -> tuple[pa.Table, dict[str, str]]:
    """A file's rows and what it says of itself. Raises StoreError where it is missing, unreadable or damaged.

    Args:
        dictionaries: columns with few distinct values, which stay dictionaries in memory.
    """
    with reading(path):
        content = filesystem.cat_file(path)
        try:
            file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=list(dictionaries))
            if has_other_digest(file, content):
                raise pa.ArrowInvalid("its digest is that of other bytes")
            return file.read(), read_described(file)
        except OSError as error:
            # Of damaged pages Arrow says so. All bytes are here: no storage is at fault.
            raise pa.ArrowInvalid(str(error)) from error


def read_metadata(filesystem: Filesystem, path: str) -> dict[str, str]:
    """What a file says of itself, from its footer alone. Raises StoreError as `read_file`."""
    with reading(path), filesystem.open(path, "rb") as file:
        return read_described(pq.ParquetFile(file))


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what goes wrong while a committed file is read into a StoreError that says what to do."""
    try:
        with storage_errors(f"read {path}"):
            yield
    except pa.ArrowException as error:
        raise StoreError(f"{path} is damaged: {error}; delete it, and its shard is labelled again") from error
