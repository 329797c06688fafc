"""The rebuilt encoder and prefill give what the product's give."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from tests.benchmarks.acceleration.fast_model import FastModel, Recipe
from tests.benchmarks.acceleration.ways import reset_compiler

# Other orders of float32 sums.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@torch.inference_mode()
def assert_same_prefix(recognizer, model: FastModel, pixels) -> None:
    module = recognizer.module
    embeds = module.encode_images(pixels)
    torch.testing.assert_close(model.encode(pixels), embeds, **CLOSE)
    expected, found = module.prefill_image_tokens(embeds), model.prefill(embeds)
    torch.testing.assert_close(found.answer_BD, expected.answer_BD, **CLOSE)
    for ours, theirs in zip(
        found.cache.keys + found.cache.values, expected.cache.keys + expected.cache.values, strict=True
    ):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("n_kv_heads", [2, 4])
@pytest.mark.parametrize("n_blocks", [1, 3])
def test_prefixes_are_the_products(build_recognizer, make_pixels, n_blocks, n_kv_heads, fused):
    recognizer = build_recognizer(n_blocks=n_blocks, n_kv_heads=n_kv_heads)
    assert_same_prefix(recognizer, FastModel(recognizer.module, Recipe(fused=fused)), make_pixels(3))


@pytest.mark.long
@pytest.mark.parametrize("float8", [False, True])
def test_one_compilation_serves_all_blocks_but_the_last(build_recognizer, make_pixels, float8):
    recognizer = build_recognizer(n_blocks=4, dtype=torch.bfloat16 if float8 else torch.float32)
    reset_compiler()
    counters.clear()
    recipe = Recipe(fused=True, compile_backend="eager", float8_encoder=float8, float8_decoder=float8)
    model, pixels = FastModel(recognizer.module, recipe), make_pixels(2).to(recognizer.dtype)
    with torch.inference_mode():
        model.prefill(model.encode(pixels))
    assert counters["stats"]["unique_graphs"] == 3
    if not float8:
        assert_same_prefix(recognizer, model, pixels)
    assert counters["stats"]["unique_graphs"] == 3


@pytest.mark.long
def test_a_compiled_step_is_compiled_twice_at_most_whatever_the_shapes(recognizer, make_pixels):
    reset_compiler()
    counters.clear()
    model = FastModel(recognizer.module, Recipe(compile_backend="eager", compile_step=True))
    with torch.inference_mode():
        for n_images in (2, 3):
            prefix = recognizer.module.prefill(make_pixels(n_images))
            model.sample(prefix, 20, 16)
    # Tensors of one own token are a case of their own.
    assert counters["stats"]["unique_graphs"] <= 2


@torch.inference_mode()
def test_float8_changes_little_of_a_prefix(build_recognizer, make_pixels):
    module = build_recognizer(dtype=torch.bfloat16).module
    embeds = module.encode_images(make_pixels(3).bfloat16())
    exact = module.prefill_image_tokens(embeds).cache.values[0].float()
    found = FastModel(module, Recipe(fused=True, float8_decoder=True)).prefill(embeds).cache.values[0].float()
    assert 1e-3 < (found - exact).norm() / exact.norm() < 0.06
