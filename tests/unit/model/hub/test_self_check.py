"""What a loaded model's branches are compared with, and what follows from it."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from model.hub import prefix_attention
from model.hub.branches import HubBranches, share_prefixes
from model.hub.copied_branches import CopiedBranches
from model.hub.self_check import choose_branches
from tests.fixtures.recognizers.tiny_vlms import build_vlm, merge


def check(architecture: str, dtype: torch.dtype = torch.float32, generation: GenerationConfig | None = None):
    vlm = build_vlm(architecture)
    vlm.model.to(dtype)
    vlm.model.generation_config = generation or GenerationConfig(pad_token_id=0)
    share_prefixes(vlm.model)
    images = [vlm.make_inputs(n_words, seed) for seed, n_words in enumerate((9, 4))]
    if dtype is not torch.float32:
        images = [{k: v.to(dtype) if v.is_floating_point() else v for k, v in image.items()} for image in images]
    return choose_branches(vlm.model, images, merge(images))


@pytest.mark.parametrize("architecture", ["llava", "qwen3_vl"])
def test_branches_that_give_what_generate_gives_share_prefixes(architecture):
    choice = check(architecture)
    assert (choice.make, choice.is_shared, choice.why_copied) == (HubBranches, True, None)
    assert choice.difference < 1e-4


def test_the_models_own_settings_of_generation_do_not_matter():
    # Of its 120 tokens every second ends the model's turn, so that generate() would stop before the check does.
    settings = GenerationConfig(
        eos_token_id=list(range(0, 120, 2)), pad_token_id=0, num_beams=2, repetition_penalty=1.5, stop_strings=["a"]
    )
    choice = check("llava", generation=settings)
    assert choice.is_shared
    assert choice.difference < 1e-4


def test_half_precision_is_given_the_room_that_it_needs():
    choice = check("llava", torch.bfloat16)
    assert choice.is_shared
    assert 0 < choice.difference < 0.5


def test_probabilities_that_are_no_numbers_do_not_pass(monkeypatch):
    step = HubBranches.step

    def broken(self, token_ids_M):
        logits_MV = step(self, token_ids_M)
        logits_MV[-1] = torch.nan
        return logits_MV

    monkeypatch.setattr(HubBranches, "step", broken)
    assert check("llava").make is CopiedBranches


def test_attention_that_is_of_another_kind_is_copied_and_says_why(monkeypatch):
    monkeypatch.setattr(prefix_attention, "_UNKNOWN_TO_BRANCHES", ("scaling",))
    attend = prefix_attention._attend_from_branches
    monkeypatch.setattr(
        prefix_attention, "_attend_from_branches", lambda *args: attend(*args[:-1], {**args[-1], "scaling": 1.0})
    )
    choice = check("llava")
    assert (choice.make, choice.is_shared) == (CopiedBranches, False)
    assert "scaling" in choice.why_copied
    assert choice.difference < 1e-4


def test_prefixes_that_are_read_wrongly_are_copied(monkeypatch):
    attend = prefix_attention.attend_from_branches

    def without_mask(*args):
        # Padding is seen, and positions behind a window.
        return attend(*args[:-2], None, args[-1])

    monkeypatch.setattr(prefix_attention, "attend_from_branches", without_mask)
    choice = check("llava")
    assert choice.make is CopiedBranches
    assert "differ by a factor" in choice.why_copied


def test_a_model_whose_batches_are_wrong_in_both_ways_is_refused(monkeypatch):
    from model.hub.prefill import HubPrefix

    inputs = HubPrefix.step_inputs
    monkeypatch.setattr(HubPrefix, "step_inputs", lambda self, image_M, n: inputs(self, image_M, n + 3))
    with pytest.raises((NotImplementedError, RuntimeError)):
        check("qwen3_vl")
