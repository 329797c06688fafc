"""Tiny recognizers with random weights, shared by the tests of the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig

from model import Recognizer
from tests.fixtures.recognizers.random_recognizer import random_recognizer

BuildRecognizer = Callable[..., Recognizer]
# Far above transformers' 0.02: weights this small would let neither the image nor the blocks change a label.
INITIALIZER_RANGE = 0.3


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tensors this small gain nothing from threads, and lose much where other processes want the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build_recognizer() -> BuildRecognizer:
    """A function that makes a recognizer small enough for a test, 4 image tokens and 8 prompt tokens by default."""

    def build(
        *,
        image_size: int = 28,
        n_blocks: int = 2,
        n_heads: int = 4,
        n_kv_heads: int = 4,
        vocab_size: int = 64,
        end_share: float = 0.4,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Recognizer:
        vision = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=image_size,
            patch_size=14,
            hidden_act="quick_gelu",
            initializer_range=INITIALIZER_RANGE,
        )
        text = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=n_blocks,
            num_attention_heads=n_heads,
            num_key_value_heads=n_kv_heads,
            initializer_range=INITIALIZER_RANGE,
        )
        return random_recognizer(vision=vision, text=text, end_share=end_share, seed=seed, dtype=dtype)

    return build


@pytest.fixture(scope="session")
def recognizer(build_recognizer: BuildRecognizer) -> Recognizer:
    """One tiny recognizer for tests that do not change it."""
    return build_recognizer()


@pytest.fixture(scope="session")
def endless_recognizer(build_recognizer: BuildRecognizer) -> Recognizer:
    """A tiny recognizer that never writes the delimiter: its logit is 0, far below the highest of the others."""
    recognizer = build_recognizer()
    output_VD = recognizer.module.get_output_embeddings().weight
    with torch.no_grad():
        output_VD *= 5
        output_VD[recognizer.config.delimiter_id] = 0
    return recognizer


@pytest.fixture(scope="session")
def make_pixels() -> Callable[..., Tensor]:
    """A function that makes a batch of random normalised pixel values, [n, 3, image_size, image_size]."""

    def make(n_images: int, image_size: int = 28, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n_images, 3, image_size, image_size, generator=generator)

    return make


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Image.Image]:
    """A function that makes an RGB image of noise."""

    def make(width: int, height: int, seed: int = 0) -> Image.Image:
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(noise)

    return make
