"""Linear layers in 8 bits: weights are rounded once, activations for every call (dynamic quantization)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from model.exporting.graph_files import graph_file, read_graph, write_graphs
from model.exporting.quiet import without_advice
from model.exporting.signatures import ENCODER, PREFILL, STEP

# What linear layers are in a graph. Products of two activations, as in attention, stay as they are.
_LINEAR = ["MatMul", "Gemm"]


def quantize_graphs(source: Path, folder: Path) -> None:
    """Writes the graphs of one folder into another with the linear layers' weights as int8, one scale a column."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(dir=folder) as between, without_advice():
        for name in (ENCODER, PREFILL, STEP):
            quantize_dynamic(
                source / graph_file(name),
                Path(between, graph_file(name)),
                op_types_to_quantize=_LINEAR,
                per_channel=True,
                # Of 8 bits 7 are used: CPUs without VNNI add two products up in 16 bits, which may not overflow.
                reduce_range=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=True,
            )
        write_graphs(((name, read_graph(Path(between), name)) for name in (ENCODER, PREFILL, STEP)), folder)
