"""Linear layers that share one input, one by one or as one product of their stacked weights.

Shape suffixes: N outputs, D inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MakeLinear = Callable[[Tensor, Tensor | None], nn.Module]


class PlainLinear(nn.Module):
    """A linear layer over a weight that lies elsewhere: nothing is copied."""

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__()
        self.weight_ND, self.bias_N = weight_ND, bias_N

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight_ND, self.bias_N)


class Projections(nn.Module):
    """Linear layers of one input: [..., D] -> one [..., N] for each."""

    def __init__(self, linears: Sequence[nn.Linear], *, fused: bool, make: MakeLinear = PlainLinear) -> None:
        """
        Args:
            fused: stacks the weights (a copy of them), so that one larger product does the work of several.
            make: makes a layer of a weight [N, D] and a bias [N].
        """
        super().__init__()
        self._widths = [linear.out_features for linear in linears]
        self._fused = fused
        self._layers = nn.ModuleList(
            [make(*_stacked(linears))] if fused else [make(linear.weight, linear.bias) for linear in linears]
        )

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        if self._fused:
            return self._layers[0](hidden).split(self._widths, dim=-1)
        return tuple(layer(hidden) for layer in self._layers)


def _stacked(linears: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    weight_ND = torch.cat([linear.weight for linear in linears])
    return weight_ND, None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
