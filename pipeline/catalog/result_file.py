"""The file that a query's result is written to, whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa

from pipeline.catalog.connection import Connection, check_query, query_error
from pipeline.errors import TagstreamError
from pipeline.storage.files import Filesystem, is_local, open_filesystem, open_whole, storage_errors
from pipeline.store.store import Store

_ROWS_AT_ONCE = 131_072


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file outside of the store that a result may be written to."""

    url: str
    filesystem: Filesystem
    path: str

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """A stream whose content appears under the path when all is written, or not at all."""
        with storage_errors(f"write {self.url}"), open_whole(self.filesystem, self.path) as stream:
            yield stream


def find_result_file(url: str, store_url: str | None, *, overwrite: bool | None) -> ResultFile:
    """The file of this name or URL. Raises TagstreamError where no result may be written: not inside of the store.

    Args:
        overwrite: whether a file that is there may be replaced; None where the user cannot ask for it.
    """
    with storage_errors(f"open {url}"):
        filesystem, path = open_filesystem(url)
        if store_url is not None:
            Store(store_url).check_outside(url, filesystem, path)
        if is_local(filesystem) and not Path(path).parent.is_dir():
            raise TagstreamError(f"there is no folder {Path(path).parent}; make it, or give another place than {url}")
        if is_local(filesystem) and not os.access(Path(path).parent, os.W_OK):
            raise TagstreamError(f"nothing may be written to {Path(path).parent}; give another place than {url}")
        if filesystem.exists(path):
            if not filesystem.isfile(path):
                raise TagstreamError(f"{url} is no file; expected the name of a file, such as labels.parquet")
            if not overwrite:
                choice = ", or --overwrite" if overwrite is not None else ""
                raise TagstreamError(f"{url} exists; give another name{choice}")
    return ResultFile(url, filesystem, path)


def stream_batches(connection: Connection, query: str) -> pa.RecordBatchReader:
    """Runs one reading query of a user's and streams its rows in Arrow batches; raises as `run_query` does."""
    check_query(connection, query)
    try:
        # A relation streams; what `execute` returns holds all rows before it gives the first batch.
        return connection.sql(query).to_arrow_reader(_ROWS_AT_ONCE)
    except duckdb.Error as error:
        raise query_error(error) from error
