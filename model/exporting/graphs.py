"""Traces a recognizer into the three graphs of `model.exporting.signatures`.

The modules that are traced run the code of `model.nxtp` that labels, so that the graphs cannot compute anything else.

Shape suffixes: B images, A slots of an image, M branches of all images together, N image tokens, D decoder width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.branch_attention import BranchLayout
from model.exporting.quiet import without_advice
from model.exporting.signatures import ENCODER, EXAMPLE_SIZES, PREFILL, STEP, Signature, Value, signatures_of
from model.nxtp.decoder import BranchCache, PrefixCache, step_branches
from model.nxtp.modeling import RecognizerModel


class _Part(nn.Module):
    """A part of a recognizer that becomes one graph."""

    def __init__(self, model: RecognizerModel) -> None:
        super().__init__()
        self.model = model


class _Encoder(_Part):
    """Pixel values to image tokens, the projector included."""

    def forward(self, pixel_values_BCHW: Tensor) -> Tensor:
        return self.model.encode_images(pixel_values_BCHW)


class _Prefill(_Part):
    """Image tokens to the logits of a label's first token, and the keys and values of image and prompt."""

    def forward(self, image_embeds_BND: Tensor) -> tuple[Tensor, ...]:
        prefix = self.model.prefill_image_tokens(image_embeds_BND)
        return self.model.token_logits(prefix.answer_BD), *_in_turn(prefix.cache.keys, prefix.cache.values)


class _Step(_Part):
    """One more token of every branch to the logits of the token behind it, and the branches' keys and values."""

    def forward(
        self,
        token_ids_M: Tensor,
        image_of_branch_M: Tensor,
        slot_of_branch_M: Tensor,
        branch_of_slot_BA: Tensor,
        prefix: Sequence[Tensor],
        past: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        of_images, of_branches = PrefixCache(*_by_part(prefix)), BranchCache(*_by_part(past))
        n_images, n_slots = branch_of_slot_BA.shape
        layout = _GivenLayout(image_of_branch_M, slot_of_branch_M, n_images, n_slots, branch_of_slot_BA)
        position = of_images.next_position + past[0].shape[2]
        hidden_MD = step_branches(self.model.decoder, token_ids_M, position, layout, of_images, of_branches)
        return self.model.token_logits(hidden_MD), *_in_turn(of_branches.keys, of_branches.values)


@dataclass(frozen=True, slots=True)
class _GivenLayout(BranchLayout):
    """A layout whose shapes do not follow from values, as a graph needs them: the caller says which branch is where.

    branch_BA: the branch in each slot of each image; any where a slot is empty.
    """

    branch_BA: Tensor

    @property
    def is_full(self) -> bool:
        return False

    def side_by_side(self, packed: Tensor) -> Tensor:
        return packed[self.branch_BA]


_MODULES = {ENCODER: _Encoder, PREFILL: _Prefill, STEP: _Step}


def trace_graphs(model: RecognizerModel) -> Iterator[tuple[str, Any]]:
    """The graphs of a recognizer, as `onnx_ir.Model` behind their names.

    One is traced when it is asked for: the exporter transposes weights, so that each graph has copies of its own.

    Raises ValueError where the exporter of torch cannot write one of them.
    """
    for name, signature in signatures_of(model.config).items():
        yield name, _trace(name, _MODULES[name](model).eval(), signature)


def _trace(name: str, module: nn.Module, signature: Signature) -> Any:
    sizes = {size: torch.export.Dim(size) for size in EXAMPLE_SIZES}
    shapes = [
        {place: sizes[size] for place, size in enumerate(value.shape) if size in sizes} for value in signature.inputs
    ]
    with torch.no_grad(), without_advice():
        try:
            program = torch.onnx.export(
                module,
                _arguments([_example(value) for value in signature.inputs], signature),
                dynamo=True,
                dynamic_shapes=_arguments(shapes, signature),
                input_names=[value.name for value in signature.inputs],
                output_names=[value.name for value in signature.outputs],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = next((line for line in str(error.__cause__ or error).splitlines() if line.strip()), "no reason")
            raise ValueError(
                f"torch {torch.__version__} cannot write its {name} as an ONNX graph ({reason.strip()})"
            ) from error
    assert program is not None
    _clean(program.model)
    return program.model


def _clean(model: Any) -> None:
    """Makes graphs of one recognizer alike: what is the same weight in two of them becomes the same bytes."""
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    # Lines of source code with the paths of this machine.
    ClearMetadataAndDocStringPass()(model)
    for node in model.graph:
        # A layer without bias, where it takes rows. Everywhere else it is a product with the weights transposed.
        if node.op_type == "Gemm" and len(node.inputs) == 2 and node.attributes.get_int("transB", 0):
            weights = node.inputs[1]
            weights.const_value = onnx_ir.tensor(weights.const_value.numpy().T.copy(), name=weights.name)
            weights.shape = weights.const_value.shape
            node.op_type = "MatMul"
            node.attributes.clear()


def _example(value: Value) -> Tensor:
    shape = [size if isinstance(size, int) else EXAMPLE_SIZES[size] for size in value.shape]
    if value.dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    return torch.rand(shape)


def _arguments(values: list[Any], signature: Signature) -> tuple[Any, ...]:
    """One value for each input, as the module takes them: caches of one kind are one list."""
    single = [value for value, of in zip(values, signature.inputs, strict=True) if "." not in of.name]
    stems = dict.fromkeys(of.name.split(".")[0] for of in signature.inputs if "." in of.name)
    lists = [
        [value for value, of in zip(values, signature.inputs, strict=True) if of.name.startswith(f"{stem}.")]
        for stem in stems
    ]
    return (*single, *lists)


def _in_turn(keys: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(part for pair in zip(keys, values, strict=True) for part in pair)


def _by_part(in_turn: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The keys and the values."""
    return list(in_turn[::2]), list(in_turn[1::2])
