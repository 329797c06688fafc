"""What one-shot sampling computes and stores: the prefix once, live branches alone."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.nxtp.branches import sample_one_shot
from tests.unit.model.oracle import slow_branches

TOP_K = 20


class LargestTensor(TorchDispatchMode):
    """Records the most elements any operation returned in one tensor."""

    def __init__(self):
        super().__init__()
        self.n_elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(tensor, torch.Tensor):
                self.n_elements = max(self.n_elements, tensor.numel())
        return output


@pytest.fixture
def count_tokens(recognizer):
    """A function that labels pixels and returns how many tokens went through a part of each block."""

    def count(pixels, part: str, max_label_tokens: int) -> list[int]:
        layers = recognizer.module.decoder.model.layers
        counts = [0] * len(layers)

        def counter(block):
            def hook(module, inputs, output):
                counts[block] += inputs[0].numel() // inputs[0].shape[-1]

            return hook

        parts = [layer.get_submodule(part) for layer in layers]
        handles = [module.register_forward_hook(counter(block)) for block, module in enumerate(parts)]
        try:
            recognizer.label_pixels(pixels, top_k=TOP_K, max_label_tokens=max_label_tokens)
        finally:
            for handle in handles:
                handle.remove()
        return counts

    return count


def n_fed_tokens(recognizer, pixels, max_label_tokens: int) -> int:
    """Tokens that branches have to feed: all but the delimiter."""
    branches = [b for image in slow_branches(recognizer.module, pixels, TOP_K, max_label_tokens) for b in image]
    return sum(len(branch.token_ids) - branch.finished for branch in branches)


@pytest.mark.parametrize("part", ["mlp", "self_attn.q_proj", "self_attn.o_proj"])
@pytest.mark.parametrize("max_label_tokens", [2, 16])
@pytest.mark.parametrize("n_images", [1, 3])
def test_blocks_compute_the_prefix_once_and_live_branches_alone(
    recognizer, make_pixels, count_tokens, n_images, max_label_tokens, part
):
    pixels = make_pixels(n_images)
    n_branch_tokens = n_fed_tokens(recognizer, pixels, max_label_tokens)
    n_prefix_tokens = n_images * recognizer.config.n_prefix_tokens
    # Of the prefix, the last block finishes the answer position alone.
    expected = [n_prefix_tokens + n_branch_tokens, n_images + n_branch_tokens]
    assert count_tokens(pixels, part, max_label_tokens) == expected


@pytest.mark.parametrize("part", ["self_attn.k_proj", "self_attn.v_proj"])
def test_every_block_computes_keys_and_values_once_a_token(recognizer, make_pixels, count_tokens, part):
    pixels = make_pixels(3)
    n_tokens = 3 * recognizer.config.n_prefix_tokens + n_fed_tokens(recognizer, pixels, 16)
    assert count_tokens(pixels, part, 16) == [n_tokens, n_tokens]


@torch.inference_mode()
def test_the_prefix_cache_has_one_entry_an_image(recognizer, make_pixels):
    cache = recognizer.module.prefill(make_pixels(3)).cache
    expected = (3, 4, recognizer.config.n_prefix_tokens, 8)
    assert [tuple(tensor.shape) for tensor in [*cache.keys, *cache.values]] == [expected] * 4


@torch.inference_mode()
def test_no_tensor_of_the_branch_steps_is_as_large_as_a_prefix_copied_per_branch(recognizer, make_pixels):
    prefix = recognizer.module.prefill(make_pixels(3))
    with LargestTensor() as largest:
        sample_one_shot(recognizer.module, prefix, TOP_K, 16)
    n_copied = prefix.cache.keys[0].numel() * TOP_K
    assert 0 < largest.n_elements < n_copied / 2
