"""Linear layers in float8 (e4m3): every row of the input and of the weight has a scale of its own.

Shape suffixes: M rows of the input, N rows of the weight (outputs), D inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
# A row of zeros has no scale of its own.
_SMALLEST_MAXIMUM = 1e-12
# What the product of float8 matrices needs of both inner and outer width.
WIDTH_MULTIPLE = 16


def quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Float8 values [..., D] and float32 scales [..., 1]: the product of both is the rows, to 1 part in 16."""
    scale = rows.abs().amax(dim=-1, keepdim=True).float().clamp(min=_SMALLEST_MAXIMUM) / LARGEST
    # A value above the largest would become NaN: dividing may round up to it.
    return (rows.float() / scale).clamp(-LARGEST, LARGEST).to(FLOAT8), scale


class Float8Linear(nn.Module):
    """A linear layer whose weight is stored in float8 and whose input is quantized as it comes.

    On CUDA the product needs compute capability 9.0 (Hopper) or later, and its result is bfloat16.
    """

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__()
        if any(width % WIDTH_MULTIPLE for width in weight_ND.shape):
            shape = " x ".join(map(str, weight_ND.shape))
            raise ValueError(f"the weight is {shape}; a float8 product takes multiples of {WIDTH_MULTIPLE}")
        self.weight_ND, scale_N1 = quantize_rows(weight_ND)
        self.scale_1N = scale_N1.T.contiguous()
        self.bias_N = bias_N

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., N], in the dtype of the input."""
        rows_MD, scale_M1 = quantize_rows(hidden.flatten(0, -2))
        return self.multiply(rows_MD, scale_M1, hidden.dtype).unflatten(0, hidden.shape[:-1])

    def multiply(self, rows_MD: Tensor, scale_M1: Tensor, dtype: torch.dtype) -> Tensor:
        """The layer's product with an input that is quantized already, [M, N]."""
        return torch._scaled_mm(
            rows_MD,
            self.weight_ND.T,
            scale_a=scale_M1,
            scale_b=self.scale_1N,
            bias=self.bias_N,
            out_dtype=dtype,
            use_fast_accum=True,
        )
