"""The decoder's parts: where branches lie, what they may attend to, what they keep."""

from __future__ import annotations

import pytest
import torch

from model.branch_attention import BranchLayout, attend_from_branches
from model.nxtp.decoder import BranchCache, prefill, prefix_mask


def test_a_layout_packs_what_it_laid_side_by_side():
    layout = BranchLayout.of(torch.tensor([0, 0, 2, 2, 2]), n_images=4)
    packed = torch.arange(10.0).view(5, 2)
    assert torch.equal(layout.packed(layout.side_by_side(packed)), packed)


def test_a_layout_pads_images_with_fewer_branches_with_zeros():
    layout = BranchLayout.of(torch.tensor([0, 0, 2]), n_images=3)
    assert layout.side_by_side(torch.tensor([1.0, 2.0, 3.0])).tolist() == [[1, 2], [0, 0], [3, 0]]


def test_images_with_equally_many_branches_lie_side_by_side_without_a_copy():
    layout = BranchLayout.of(torch.tensor([0, 0, 1, 1]), n_images=2)
    packed = torch.arange(8.0).view(4, 2)
    padded = layout.side_by_side(packed)
    assert padded.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert padded.data_ptr() == packed.data_ptr()
    assert torch.equal(layout.packed(padded), packed)


@pytest.mark.parametrize("n_heads", [2, 6])
@pytest.mark.parametrize("images", [[0, 0, 1, 1], [0, 0, 0, 2], [1]])
def test_a_branch_attends_to_its_images_prefix_and_its_own_tokens_as_if_nothing_else_were_there(images, n_heads):
    n_kv_heads, n_prefix, n_own, width = 2, 5, 3, 4
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    n_branches, n_images = len(images), 3
    query_MHE = random(n_branches, n_heads, width)
    own = [random(n_branches, n_kv_heads, n_own, width) for _ in range(2)]
    prefix = [random(n_images, n_kv_heads, n_prefix, width) for _ in range(2)]
    layout = BranchLayout.of(torch.tensor(images), n_images)
    got_MHE = attend_from_branches(query_MHE, *own, *prefix, layout)
    for branch, image in enumerate(images):
        for head in range(n_heads):
            group = head // (n_heads // n_kv_heads)
            keys, values = (torch.cat((prefix[i][image, group], own[i][branch, group])) for i in range(2))
            expected_E = (keys @ query_MHE[branch, head]).softmax(0) @ values
            torch.testing.assert_close(got_MHE[branch, head], expected_E, rtol=1e-5, atol=1e-6)


def test_image_tokens_see_one_another_and_text_sees_what_lies_before_it():
    assert prefix_mask(2, 4, "cpu").int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_branches_keep_their_own_tokens_when_others_end():
    cache = BranchCache()
    for step in range(2):
        for block in range(3):
            key_MKE = torch.arange(3.0).view(3, 1, 1) + 10 * step + 100 * block
            keys, values = cache.append(block, key_MKE, -key_MKE)
            assert keys.shape == values.shape == (3, 1, step + 1, 1)
    cache.keep(torch.tensor([0, 2]))
    assert [keys.flatten(1).tolist() for keys in cache.keys] == [
        [[100 * block, 100 * block + 10], [100 * block + 2, 100 * block + 12]] for block in range(3)
    ]
    assert all(torch.equal(values, -keys) for keys, values in zip(cache.keys, cache.values, strict=True))


@torch.inference_mode()
@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_the_prefix_gives_the_hidden_state_that_the_whole_network_has_at_its_answer(build_recognizer, n_kv_heads):
    module = build_recognizer(n_kv_heads=n_kv_heads).module
    n_image, n_tokens = 4, 9
    embeds_BSD = torch.randn(2, n_tokens, 32, generator=torch.Generator().manual_seed(0))
    hidden_BD, cache = prefill(module.decoder, embeds_BSD, n_image)
    mask_SS = torch.full((n_tokens, n_tokens), torch.finfo(torch.float32).min).triu(1)
    mask_SS[:n_image, :n_image] = 0
    stock = module.decoder.model(inputs_embeds=embeds_BSD, attention_mask=mask_SS[None, None].expand(2, -1, -1, -1))
    torch.testing.assert_close(hidden_BD, stock.last_hidden_state[:, -1], rtol=1e-4, atol=1e-5)
    assert [tuple(keys.shape) for keys in cache.keys] == [(2, n_kv_heads, n_tokens, 8)] * 2
    assert cache.n_tokens == n_tokens
