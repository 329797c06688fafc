"""JSON written piece by piece: an export need not fit into memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any


class JsonList:
    """A list of objects, one a line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._n_items = 0

    def __len__(self) -> int:
        return self._n_items

    def add(self, item: Mapping[str, Any]) -> None:
        self._stream.write((",\n" if self._n_items else "[\n") + to_json(item))
        self._n_items += 1

    def end(self) -> None:
        self._stream.write("\n]" if self._n_items else "[]")


def to_json(value: Any) -> str:
    """Text of any script as it is; a number that JSON does not have is an error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
