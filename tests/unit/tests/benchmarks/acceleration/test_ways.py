"""Every way labels images, and those of full precision label them as the product does."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend

from tests.benchmarks.acceleration.timing import agreement, label
from tests.benchmarks.acceleration.ways import BEST, WAYS, Maker, reset_compiler

# What is searched for is the same without a GPU.
LEFT_OUT = ("float8", "cuDNN", "search", "quarter")
# A compiler takes long to trace.
EXACT = [
    pytest.param(name, marks=pytest.mark.long) if "compiled" in name else name
    for name in WAYS
    if not any(part in name for part in LEFT_OUT)
]


@pytest.mark.parametrize("name", EXACT)
@torch.inference_mode()
def test_a_way_of_full_precision_finds_the_products_labels(recognizer, make_pixels, name):
    reset_compiler()
    maker, pixels = Maker(recognizer.module), make_pixels(2)
    expected, _ = label(maker.product(), pixels, 8, 4)
    found, _ = label(WAYS[name](maker), pixels, 8, 4)
    assert agreement(expected, found) == 1


@torch.inference_mode()
def test_fewer_tokens_find_the_labels_that_the_product_finds_with_fewer(build_recognizer, make_pixels):
    recognizer = build_recognizer(image_size=56)
    maker, pixels = Maker(recognizer.module), make_pixels(2, image_size=56)
    expected, _ = label(maker.merged(), pixels, 8, 4)
    found, _ = label(maker.fast(fused=True, merged=True), pixels, 8, 4)
    all_tokens, _ = label(maker.product(), pixels, 8, 4)
    assert agreement(expected, found) == 1
    assert agreement(all_tokens, found) < 1


@torch.inference_mode()
def test_a_kernel_that_is_not_there_fails_and_is_not_replaced(recognizer, make_pixels):
    way = Maker(recognizer.module).encoder_attention(SDPBackend.CUDNN_ATTENTION)
    with pytest.raises(RuntimeError, match="No viable backend"):
        way.encode(make_pixels(1))


def test_the_best_way_is_one_of_them():
    assert BEST in WAYS
