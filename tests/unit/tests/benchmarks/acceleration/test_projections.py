"""Linear layers of one input, apart and as one product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.benchmarks.acceleration.projections import Projections


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_each_layer_gives_what_it_gives_alone(fused, bias):
    linears = [nn.Linear(32, n_outputs, bias=bias) for n_outputs in (48, 16, 16)]
    hidden = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    for got, linear in zip(Projections(linears, fused=fused)(hidden), linears, strict=True):
        # A wider product may sum in another order.
        torch.testing.assert_close(got, linear(hidden), rtol=1e-6, atol=1e-6)


def test_weights_that_stay_apart_are_not_copied():
    linears = [nn.Linear(8, 8), nn.Linear(8, 8)]
    kept = Projections(linears, fused=False).parameters()
    assert {weight.data_ptr() for weight in kept} == {
        weight.data_ptr() for lin in linears for weight in lin.parameters()
    }
