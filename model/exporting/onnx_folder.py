"""Exports a recognizer: a folder with its graphs and all that is needed to run them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from model.exporting.agreement import Agreement, compare_with_torch
from model.exporting.description import describe
from model.exporting.graph_files import write_graphs
from model.exporting.graphs import trace_graphs
from model.exporting.quantization import quantize_graphs
from model.nxtp.recognizer import Recognizer

_NEEDED = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True, slots=True)
class Exported:
    """How the graphs agree with torch: in float32, and quantized where that was asked for."""

    float32: Agreement
    int8: Agreement | None


def missing_packages() -> list[str]:
    """The packages that an export needs and that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


def export_recognizer(
    recognizer: Recognizer, folder: Path, images: Sequence[bytes], name: str, fingerprint: str, *, int8: bool = False
) -> Exported:
    """Writes a recognizer's graphs into a folder that exists and is empty, and checks them against torch.

    Args:
        recognizer: on the CPU, in float32.
        images: encoded, as files have them. What both label.
        name, fingerprint: of the model, for the record.
        int8: whether the linear layers get weights of 8 bits. The graphs in float32 are checked all the same.

    Raises ValueError where torch cannot write a graph, or the graphs in float32 compute something else.
    """
    if not int8:
        exact = _write(recognizer, folder, images)
        describe(recognizer, folder, name, fingerprint, "float32")
        return Exported(exact, None)
    with tempfile.TemporaryDirectory(dir=folder) as between:
        exact = _write(recognizer, Path(between), images)
        quantize_graphs(Path(between), folder)
    rounded = compare_with_torch(recognizer, folder, images)
    describe(recognizer, folder, name, fingerprint, "int8")
    return Exported(exact, rounded)


def _write(recognizer: Recognizer, folder: Path, images: Sequence[bytes]) -> Agreement:
    write_graphs(trace_graphs(recognizer.module), folder)
    agreement = compare_with_torch(recognizer, folder, images)
    if not agreement.is_exact:
        raise ValueError(
            f"onnxruntime computes something else with the graphs than torch: logits differ by up to "
            f"{agreement.difference:.2g} where the largest is {agreement.largest_logit:.1f}"
        )
    return agreement
