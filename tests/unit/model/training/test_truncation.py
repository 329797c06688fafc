"""Cutting a decoder."""

from __future__ import annotations

import pytest
import torch

from model import Recognizer
from model.training.truncation import truncate


def test_all_blocks_kept_is_the_same_model(build_recognizer, make_pixels):
    recognizer = build_recognizer(n_blocks=3)
    logits = truncate(recognizer, 3).first_logits(make_pixels(2))
    assert torch.equal(logits, recognizer.first_logits(make_pixels(2)))


def test_the_first_blocks_are_kept_with_their_weights(build_recognizer):
    recognizer = build_recognizer(n_blocks=3)
    smaller = truncate(recognizer, 2)
    kept = recognizer.module.state_dict()
    assert smaller.config.text_config.num_hidden_layers == 2
    assert all(torch.equal(tensor, kept[name]) for name, tensor in smaller.module.state_dict().items())
    assert len(kept) - len(smaller.module.state_dict()) == 9


def test_a_block_that_is_cut_counts_no_more(build_recognizer, make_pixels):
    recognizer = build_recognizer(n_blocks=3)
    before = truncate(recognizer, 2).first_logits(make_pixels(2))
    with torch.no_grad():
        recognizer.module.decoder.model.layers[2].mlp.up_proj.weight.zero_()
    assert torch.equal(truncate(recognizer, 2).first_logits(make_pixels(2)), before)


def test_the_smaller_model_is_saved_and_loaded(build_recognizer, make_pixels, tmp_path):
    smaller = truncate(build_recognizer(n_blocks=3), 1)
    smaller.save_pretrained(tmp_path)
    loaded = Recognizer.from_pretrained(tmp_path, device="cpu")
    assert torch.equal(loaded.first_logits(make_pixels(2)), smaller.first_logits(make_pixels(2)))


@pytest.mark.parametrize("n_blocks", [0, -1, 4])
def test_a_number_of_blocks_that_the_model_does_not_have_is_refused(build_recognizer, n_blocks):
    with pytest.raises(ValueError, match="expected 1 to 3"):
        truncate(build_recognizer(n_blocks=3), n_blocks)
