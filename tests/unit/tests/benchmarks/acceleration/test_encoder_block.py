"""The rebuilt block of the encoder."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks.acceleration.encoder_block import EncoderBlock


@pytest.mark.parametrize("fused", [False, True])
@torch.inference_mode()
def test_a_block_computes_what_clips_layer_does(recognizer, fused):
    layer = recognizer.module.vision_encoder.encoder.layers[0]
    hidden_BXW = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    expected = layer(hidden_BXW, attention_mask=None)
    torch.testing.assert_close(EncoderBlock(layer, fused=fused)(hidden_BXW), expected, rtol=1e-5, atol=1e-5)
