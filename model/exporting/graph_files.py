"""Graphs on disk: one file each, and all of their weights once, in one file beside them.

Prefill and step have the same decoder, whose weights are most of a recognizer. A graph's own file may not exceed 2 GB,
so weights never stand in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

WEIGHTS_FILE = "weights.data"
# What is smaller are shapes and constants, which whoever reads a graph wants to see in it.
_MIN_BYTES = 1024
# Where a file can be mapped into memory.
_ALIGNMENT = 4096


def graph_file(name: str) -> str:
    """The file of the graph of this name."""
    return f"{name}.onnx"


def write_graphs(graphs: Iterable[tuple[str, Any]], folder: Path) -> None:
    """Writes graphs, `onnx_ir.Model` behind their names, into a folder that exists. No two are in memory at once."""
    import onnx_ir

    with (folder / WEIGHTS_FILE).open("wb") as file:
        weights = _SharedWeights(file, folder)
        for name, model in graphs:
            for value in model.graph.initializers.values():
                if value.const_value.nbytes >= _MIN_BYTES:
                    value.const_value = weights.add(value.const_value)
            onnx_ir.save(model, folder / graph_file(name))


def read_graph(folder: Path, name: str) -> Any:
    """A graph as `onnx_ir.Model`; its weights are read when they are asked for."""
    import onnx_ir

    return onnx_ir.load(folder / graph_file(name))


class _SharedWeights:
    """A file of tensors, in which those of the same bytes stand once."""

    def __init__(self, file: BinaryIO, folder: Path) -> None:
        self._file, self._folder = file, folder
        self._offsets: dict[bytes, int] = {}

    def add(self, tensor: Any) -> Any:
        """The same tensor, with its bytes in the file."""
        import onnx_ir

        content = tensor.tobytes()
        digest = hashlib.sha256(content).digest()
        if digest not in self._offsets:
            self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
            self._offsets[digest] = self._file.tell()
            self._file.write(content)
        return onnx_ir.ExternalTensor(
            WEIGHTS_FILE,
            self._offsets[digest],
            len(content),
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            base_dir=self._folder,
        )
