"""Linear layers in float8: rows keep their size, products come near those of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.benchmarks.acceleration.fp8 import LARGEST, Float8Linear, quantize_rows
from tests.benchmarks.acceleration.projections import Projections


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_values_of_rows_are_kept_to_1_part_in_16_of_themselves_or_the_smallest_step(size):
    rows = random(5, 64) * size * torch.tensor([1.0, 10.0, 100.0, 1e-2, 1.0])[:, None]
    values, scale = quantize_rows(rows)
    error = (values.float() * scale - rows).abs()
    # Below its smallest normal number, 2**-6, float8 has steps of 2**-9.
    assert (error <= torch.maximum(rows.abs() / 16, scale * 2**-10) * 1.001).all()


def test_the_largest_value_of_a_row_uses_all_of_the_range():
    values, _ = quantize_rows(random(5, 64))
    assert values.float().abs().amax(dim=1).tolist() == [LARGEST] * 5


def test_a_row_of_zeros_stays_zero():
    values, scale = quantize_rows(torch.zeros(1, 16))
    assert (values.float() * scale).tolist() == [[0.0] * 16]


@pytest.mark.parametrize("bias", [None, random(48, seed=2)])
def test_a_layer_computes_what_its_quantized_numbers_say(bias):
    layer, hidden = Float8Linear(random(48, 32, seed=1), bias), random(3, 7, 32)
    values, scale = quantize_rows(hidden)
    weight = layer.weight_ND.float() * layer.scale_1N.T
    expected = F.linear(values.float() * scale, weight, bias)
    torch.testing.assert_close(layer(hidden), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_comes_within_5_percent_of_the_exact_one():
    weight, hidden = random(64, 256, seed=1), random(32, 256)
    exact = F.linear(hidden, weight)
    error = Float8Linear(weight, None)(hidden) - exact
    assert 0.01 < error.norm() / exact.norm() < 0.05


def test_stacked_weights_are_quantized_as_they_are_alone():
    linears = [nn.Linear(32, 48), nn.Linear(32, 16)]
    hidden = random(5, 32)
    with torch.no_grad():
        apart, fused = (Projections(linears, fused=fused, make=Float8Linear)(hidden) for fused in (False, True))
    for alone, together in zip(apart, fused, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(48, 20), (20, 48)])
def test_widths_that_the_product_cannot_take_are_refused(shape):
    with pytest.raises(
        ValueError, match=f"the weight is {shape[0]} x {shape[1]}; a float8 product takes multiples of 16"
    ):
        Float8Linear(torch.zeros(shape), None)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0), reason="needs a GPU with float8"
)
@pytest.mark.parametrize("n_rows", [1, 33, 4096])
def test_on_cuda_a_layer_computes_what_it_does_on_the_cpu(n_rows):
    weight, bias = random(512, 1024, seed=1).bfloat16(), random(512, seed=2).bfloat16()
    hidden = random(n_rows, 1024).bfloat16()
    expected = Float8Linear(weight, bias)(hidden).float()
    error = Float8Linear(weight.cuda(), bias.cuda())(hidden.cuda()).cpu().float() - expected
    assert error.norm() / expected.norm() < 0.01
