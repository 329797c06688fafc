"""Tables that were read once, kept in a temporary file without a name: one that was decoded is soon read again."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence

import pyarrow as pa

_MOST_BYTES = 8 << 30


class KeptTables:
    """Tables by number, as many as a file of so many bytes holds. Several threads may use it."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._file = tempfile.TemporaryFile(prefix="tagstream-labels-")  # noqa: SIM115 (ends with the tables)
        self._most = most_bytes
        self._spans: dict[int, list[tuple[int, int]]] = {}
        self._end = 0
        self._lock = threading.Lock()

    def keep(self, number: int, tables: Sequence[pa.Table]) -> None:
        """Keeps tables, if there is room."""
        contents = [_encode(table) for table in tables]
        with self._lock:
            if number in self._spans or self._end + sum(map(len, contents)) > self._most:
                return
            spans = []
            for content in contents:
                spans.append((self._end, len(content)))
                self._end += len(content)
        for (at, _), content in zip(spans, contents, strict=True):
            while content:
                n_written = os.pwrite(self._file.fileno(), content, at)
                at, content = at + n_written, content[n_written:]
        self._spans[number] = spans

    def get(self, number: int) -> list[pa.Table] | None:
        """The tables of a number; None where it has none."""
        spans = self._spans.get(number)
        if spans is None:
            return None
        contents = (os.pread(self._file.fileno(), length, at) for at, length in spans)
        return [pa.ipc.open_stream(pa.py_buffer(content)).read_all() for content in contents]


def _encode(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())
