"""Merged image tokens: chosen and joined as a slow loop does it, and read as stock modules read them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model import Recognizer
from model.ending import Ending
from model.label_trie import ListedLabels
from model.nxtp.branches import NxtpBranches, sample_one_shot
from model.nxtp.decoder import PrefixPlaces, prefill
from model.nxtp.modeling import RecognizerModel
from model.nxtp.token_merging import MergedTokens, merge_tokens
from model.sampling import Branches
from model.scoring import score_labels
from pipeline.training.recall_sum import RecallSum
from tests.fixtures.shipped_scenes import read_scenes
from tests.unit.model.oracle import assert_same_branches, fast_branches, slow_branches
from tests.unit.model.slow_merging import slow_merge

N_PATCHES = 16
TOP_K = 6


def random_tokens(n_images: int = 3, seed: int = 0) -> torch.Tensor:
    """Tokens [n, 16, 8] of which some are alike: a few directions with noise."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(5, 8, generator=generator)
    which = torch.randint(5, (n_images, N_PATCHES), generator=generator)
    return directions[which] + 0.3 * torch.randn(n_images, N_PATCHES, 8, generator=generator)


@pytest.fixture(scope="module")
def patchy(build_recognizer) -> Recognizer:
    """A tiny recognizer of 16 image tokens whose attention is grouped."""
    return build_recognizer(image_size=56, n_heads=8, n_kv_heads=2)


@pytest.fixture(scope="module")
def pixels(make_pixels) -> torch.Tensor:
    return make_pixels(3, 56)


@torch.inference_mode()
def sample(recognizer: Recognizer, pixels: torch.Tensor, image_tokens: int) -> Branches:
    module = recognizer.module
    prefix = module.prefill_image_tokens(module.encode_images(pixels), image_tokens)
    return sample_one_shot(module, prefix, TOP_K, 6)


class TestMerging:
    """Which tokens are kept, and what becomes of the others."""

    @pytest.mark.parametrize("n_kept", [1, 2, 5, 9, 15])
    def test_it_equals_a_loop_over_tokens(self, n_kept):
        tokens = random_tokens()
        merged = merge_tokens(tokens, n_kept)
        for image, image_PD in enumerate(tokens):
            expected = slow_merge(image_PD, n_kept)
            assert merged.sizes_BN[image].tolist() == expected.sizes
            assert merged.positions_BN[image].tolist() == pytest.approx(expected.positions)
            torch.testing.assert_close(merged.embeds_BND[image], expected.image_ND)

    @pytest.mark.parametrize("n_kept", [1, 3, 15])
    def test_each_patch_belongs_to_one_token_and_sizes_add_up(self, n_kept):
        merged = merge_tokens(random_tokens(), n_kept)
        assert merged.sizes_BN.sum(dim=1).tolist() == [N_PATCHES] * 3
        for sizes_N, token_P in zip(merged.sizes_BN, merged.token_BP, strict=True):
            assert torch.bincount(token_P, minlength=n_kept).tolist() == sizes_N.tolist()

    @pytest.mark.parametrize("n_kept", [1, 4, 15])
    def test_of_tokens_that_are_all_alike_the_lowest_are_kept_and_the_first_takes_the_rest(self, n_kept):
        merged = merge_tokens(torch.tensor([3.0, 0.0, 4.0]).expand(2, N_PATCHES, 3), n_kept)
        assert merged.sizes_BN.tolist() == [[N_PATCHES - n_kept + 1] + [1] * (n_kept - 1)] * 2
        torch.testing.assert_close(merged.embeds_BND, torch.tensor([3.0, 0.0, 4.0]).expand(2, n_kept, 3))

    def test_tokens_that_are_equally_unlike_go_by_their_place(self):
        axes = torch.eye(4).repeat_interleave(2, dim=0)[None]
        merged = merge_tokens(axes, 4)
        assert merged.token_BP.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
        assert merged.positions_BN.tolist() == [[0.5, 2.5, 4.5, 6.5]]

    def test_a_token_of_zeros_is_taken_for_unlike_all_others(self):
        merged = merge_tokens(torch.tensor([[[1.0, 0.0], [0.0, 0.0], [1.0, 0.1]]]), 2)
        assert merged.sizes_BN.tolist() == [[2, 1]]

    def test_kept_tokens_that_nothing_joins_stay_as_they_are_to_the_bit(self):
        tokens = random_tokens()
        merged = merge_tokens(tokens, N_PATCHES)
        assert torch.equal(merged.embeds_BND, tokens)
        assert torch.equal(merged.positions_BN, torch.arange(16.0).expand(3, -1))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_tokens_are_merged_in_float32(self, dtype):
        halved = random_tokens().to(dtype)
        merged, expected = merge_tokens(halved, 5), merge_tokens(halved.float(), 5)
        assert torch.equal(merged.token_BP, expected.token_BP)
        assert torch.equal(merged.embeds_BND, expected.embeds_BND.to(dtype))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("size", [1, 7])
    def test_the_choice_is_the_same_in_batches_of_any_size(self, dtype, size):
        tokens = random_tokens(56).to(dtype)
        together, parts = merge_tokens(tokens, 5), [merge_tokens(part, 5) for part in tokens.split(size)]
        assert torch.equal(torch.cat([part.token_BP for part in parts]), together.token_BP)
        torch.testing.assert_close(torch.cat([part.embeds_BND for part in parts]), together.embeds_BND)

    def test_autocast_changes_nothing(self):
        tokens = random_tokens()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            merged = merge_tokens(tokens, 5)
        assert torch.equal(merged.embeds_BND, merge_tokens(tokens, 5).embeds_BND)

    def test_a_patchs_gradient_is_its_share_of_the_mean(self):
        tokens = random_tokens().requires_grad_()
        merged = merge_tokens(tokens, 5)
        merged.embeds_BND.sum().backward()
        expected_BP = (1 / merged.sizes_BN).gather(1, merged.token_BP)
        torch.testing.assert_close(tokens.grad, expected_BP[:, :, None].expand_as(tokens))


class TestLabels:
    """Those of stock modules that read the merged tokens."""

    @pytest.mark.parametrize("image_tokens", [1, 5, 15])
    def test_branches_equal_scoring_each_alone_by_stock_modules(self, patchy, pixels, image_tokens):
        merge = partial(slow_merge, n_kept=image_tokens)
        expected = slow_branches(patchy.module, pixels, TOP_K, 6, merge)
        assert_same_branches(fast_branches(sample(patchy, pixels, image_tokens)), expected)

    @pytest.mark.parametrize("fault", ["no size bias", "positions without gaps", "prompt moved up", "labels moved up"])
    def test_the_comparison_finds_a_fault(self, patchy, pixels, monkeypatch, fault):
        right = MergedTokens.places

        def wrong(self: MergedTokens, n_prompt_tokens: int) -> PrefixPlaces:
            places = right(self, n_prompt_tokens)
            positions_BS, bias_BS, end = places.positions_BS.clone(), places.bias_BS, places.next_position
            n_kept = self.sizes_BN.shape[1]
            if fault == "no size bias":
                bias_BS = torch.zeros_like(bias_BS)
            elif fault == "positions without gaps":
                positions_BS[:, :n_kept] = torch.arange(n_kept)
            elif fault == "prompt moved up":
                positions_BS[:, n_kept:] -= N_PATCHES - n_kept
            else:
                end -= N_PATCHES - n_kept
            return PrefixPlaces(positions_BS, bias_BS, end)

        monkeypatch.setattr(MergedTokens, "places", wrong)
        expected = slow_branches(patchy.module, pixels, TOP_K, 6, partial(slow_merge, n_kept=4))
        with pytest.raises(AssertionError):
            assert_same_branches(fast_branches(sample(patchy, pixels, 4)), expected)

    def test_a_label_begins_behind_all_patches_and_the_prompt(self, patchy, pixels, monkeypatch):
        positions = []
        rotary = patchy.module.decoder.model.rotary_emb
        monkeypatch.setattr(
            rotary, "forward", lambda x, at, forward=rotary.forward: positions.append(at) or forward(x, at)
        )
        sample(patchy, pixels, 4)
        n_prompt = len(patchy.config.prompt_ids)
        assert positions[0][:, 4:].tolist() == [list(range(N_PATCHES, N_PATCHES + n_prompt))] * 3
        assert [int(at) for at in positions[1:]] == [N_PATCHES + n_prompt + t for t in range(len(positions) - 1)]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("image_tokens", [0, 16])
    def test_all_tokens_give_the_labels_and_scores_of_stock_to_the_bit(
        self, build_recognizer, pixels, image_tokens, dtype
    ):
        recognizer = build_recognizer(image_size=56, dtype=dtype)
        listed = recognizer.list_names([["w20"], ["w30"]], 3)
        stock = recognizer.sample(pixels, 12, names=[listed])
        asked = recognizer.sample(pixels, 12, names=[listed], image_tokens=image_tokens)
        assert asked.branches.to_lists() == stock.branches.to_lists()
        assert torch.equal(asked.listed[0], stock.listed[0])
        assert torch.equal(recognizer.score_prepared(pixels, [listed], image_tokens=image_tokens)[0], stock.listed[0])

    @torch.inference_mode()
    def test_all_tokens_that_pass_through_the_merging_give_stock_labels_too(self, patchy, pixels):
        module = patchy.module
        image_embeds = module.encode_images(pixels)
        stock = module.prefill_image_tokens(image_embeds)
        merged = merge_tokens(image_embeds, N_PATCHES)
        prompt = module.get_input_embeddings()(torch.tensor(module.config.prompt_ids)).expand(3, -1, -1)
        embeds = torch.cat((merged.embeds_BND, prompt), dim=1)
        answer, _ = prefill(module.decoder, embeds, N_PATCHES, merged.places(prompt.shape[1]))
        torch.testing.assert_close(answer, stock.answer_BD, rtol=1e-5, atol=1e-5)

    @torch.inference_mode()
    def test_labels_of_a_list_get_the_probability_that_sampling_finds(self, patchy, pixels):
        prefix = patchy.module.prefill_image_tokens(patchy.module.encode_images(pixels), 5)
        branches = [branch for branch in fast_branches(sample(patchy, pixels, 5))[0] if branch.finished]
        labels = ListedLabels([branch.token_ids[:-1] for branch in branches])
        scores_BL = score_labels(NxtpBranches(patchy.module, prefix), labels, Ending([patchy.config.delimiter_id]))
        assert scores_BL[0].exp().tolist() == pytest.approx([np.prod(b.token_probs) for b in branches], rel=1e-4)

    def test_names_are_scored_over_the_merged_tokens_with_labels_and_without(self, patchy, pixels):
        listed = patchy.list_names([["w20"], ["w30"]], 3)
        whole, merged = (patchy.score_prepared(pixels, [listed], image_tokens=number)[0] for number in (0, 5))
        assert not torch.allclose(whole, merged, rtol=1e-2)
        assert torch.equal(patchy.sample(pixels, 3, image_tokens=5, names=[listed]).listed[0], merged)

    def test_the_ranking_by_likeness_compares_with_all_patches(self, patchy, pixels):
        whole, merged = (patchy.label_pixels(pixels, 20, "sim", image_tokens=number) for number in (0, 15))
        known = {label.token_ids: label.score for label in whole[0]}
        both = [label for label in merged[0] if label.token_ids in known]
        assert len(both) > 1
        assert [label.score for label in both] == [known[label.token_ids] for label in both]

    @torch.inference_mode()
    def test_prefix_and_blocks_hold_the_kept_tokens_alone(self, patchy, pixels):
        prefix = patchy.module.prefill_image_tokens(patchy.module.encode_images(pixels), 5)
        assert prefix.cache.n_tokens == 5 + len(patchy.config.prompt_ids)
        assert NxtpBranches(patchy.module, prefix).first_logits_BV.shape[0] == 3

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_probabilities_are_near_those_of_the_same_weights_in_float32(
        self, build_recognizer, pixels, dtype
    ):
        halved = build_recognizer(image_size=56, dtype=dtype)
        whole = Recognizer(copy.deepcopy(halved.module).float(), halved.preprocessor, halved.tokenizer)
        got, expected = (
            {label.token_ids[0]: label.token_probs[0] for label in one.label_pixels(pixels, 64, image_tokens=5)[0]}
            for one in (halved, whole)
        )
        assert len(got.keys() & expected.keys()) > 20
        # bfloat16 keeps 8 bits; errors add up over encoder and blocks.
        assert all(got[first] == pytest.approx(expected[first], abs=0.02) for first in got.keys() & expected.keys())

    def test_an_image_of_one_colour_is_labelled(self, patchy):
        grey = Image.new("RGB", (60, 60), (128, 128, 128))
        for image_tokens in (1, 3, 15):
            assert patchy.label([grey], image_tokens=image_tokens)[0]


class TestRefusals:
    """What cannot be merged."""

    @pytest.mark.parametrize("image_tokens", [17, -1])
    def test_a_number_that_the_model_has_not_is_refused_and_its_own_is_named(self, patchy, pixels, image_tokens):
        refused = rf"image_tokens is {image_tokens}; this model has 16 image tokens, expected 0 \(all\) to 16"
        with pytest.raises(ValueError, match=refused):
            patchy.label_pixels(pixels, image_tokens=image_tokens)
        with pytest.raises(ValueError, match=refused):
            patchy.score_prepared(pixels, [], image_tokens=image_tokens)

    @pytest.mark.parametrize("sampling", ["greedy", "beam"])
    def test_lists_are_written_from_all_tokens_alone(self, patchy, pixels, sampling):
        with pytest.raises(ValueError, match=f"image_tokens is 4 and sampling {sampling}, which reads all image tok"):
            patchy.label_pixels(pixels, sampling=sampling, image_tokens=4)


@pytest.fixture(scope="module")
def demo() -> Recognizer:
    return Recognizer.from_pretrained("demo", device="cpu")


@pytest.fixture(scope="module")
def scenes() -> list[tuple[bytes, list[str]]]:
    return read_scenes()


def recall_at_10(recognizer: Recognizer, scenes: list[tuple[bytes, list[str]]], image_tokens: int) -> float:
    total = RecallSum()
    for start in range(0, len(scenes), 25):
        images, truths = zip(*scenes[start : start + 25], strict=True)
        for labels, truth in zip(recognizer.label(images, 10, image_tokens=image_tokens), truths, strict=True):
            total.add([label.text for label in labels], truth)
    return total.means()["recall_10"]


class TestDemoModel:
    """Real weights on scenes with a truth."""

    def test_half_of_the_tokens_lose_at_most_a_hundredth_of_recall(self, demo, scenes):
        some = scenes[:100]
        assert recall_at_10(demo, some, 18) >= recall_at_10(demo, some, 0) - 0.01

    @pytest.mark.long
    @pytest.mark.parametrize(("image_tokens", "loss"), [(18, 0.01), (9, 0.04)])
    def test_fewer_tokens_lose_no_more_recall_on_all_scenes(self, demo, scenes, image_tokens, loss):
        assert recall_at_10(demo, scenes, image_tokens) >= recall_at_10(demo, scenes, 0) - loss

    def test_labels_are_the_same_twice_in_any_batch_and_in_any_order(self, demo, scenes):
        pictures = [picture for picture, _ in scenes[:14]]
        together = demo.label(pictures, 10, image_tokens=9)
        found = [demo.label(pictures, 10, image_tokens=9), demo.label(pictures[::-1], 10, image_tokens=9)[::-1]]
        for size in (1, 7):
            batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
            found.append([labels for batch in batches for labels in demo.label(batch, 10, image_tokens=9)])
        for labels in found:
            assert token_ids(labels) == token_ids(together)
            # Another batch moves a float32 by some units in its last place.
            assert scores(labels) == pytest.approx(scores(together), abs=2e-6)


def token_ids(images: Any) -> list[list[tuple[int, ...]]]:
    return [[label.token_ids for label in labels] for labels in images]


def scores(images: Any) -> list[float]:
    return [label.score for labels in images for label in labels]


def test_the_model_tells_which_patches_are_merged(patchy, pixels):
    module: RecognizerModel = patchy.module
    with torch.inference_mode():
        image_embeds = module.encode_images(pixels)
        assert module.merge_image_tokens(image_embeds, 0) is None
        assert module.merge_image_tokens(image_embeds, 16) is None
        assert module.merge_image_tokens(image_embeds, 6).token_BP.shape == (3, 16)
