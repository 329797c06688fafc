"""Explanations: the labels of `label`, and attention as the stock Llama computes it over the whole sequence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaModel

from model import Explanation, ImageDecodeError, Recognizer
from model.nxtp.decoder import prefix_mask
from model.nxtp.explanation import attend_blocks
from tests.fixtures.corpus import STORED_AS, encode, jpeg
from tests.unit.model.oracle import MergedImage, whole_image
from tests.unit.model.slow_merging import slow_merge

RANKINGS = ["prob", "ppl", "sim", "none"]
ORIENTATION = 0x0112
# Two ways through the same float32 network.
TOLERANCE = 1e-5


def labels_of(explanation: Explanation):
    return [explained.label for explained in explanation.labels]


@torch.no_grad()
def stock_attention(
    recognizer: Recognizer, image, label_ids, merge: Callable[[torch.Tensor], MergedImage] = whole_image
) -> list[torch.Tensor]:
    """Attention [H, X, X] of each block by transformers' eager Llama, over image, prompt and label in one pass."""
    config = copy.deepcopy(recognizer.config.text_config)
    config._attn_implementation = "eager"
    stock = LlamaModel(config).eval()
    stock.load_state_dict(recognizer.module.decoder.model.state_dict())
    merged = merge(recognizer.module.encode_images(recognizer.prepare([recognizer.preprocessor.view(image)]))[0])
    image_ND = merged.image_ND
    text_ids = torch.tensor([*recognizer.config.prompt_ids, *label_ids])
    embeds_XD = torch.cat((image_ND, stock.embed_tokens(text_ids)))
    places_X = torch.arange(len(embeds_XD))
    is_image_X = places_X < len(image_ND)
    may_attend_XX = (places_X[None] <= places_X[:, None]) | (is_image_X[:, None] & is_image_X[None])
    bias_X = torch.tensor(merged.sizes + [1] * len(text_ids)).log()
    text_positions = torch.arange(merged.n_patches, merged.n_patches + len(text_ids))
    output = stock(
        inputs_embeds=embeds_XD[None],
        attention_mask=torch.where(may_attend_XX, bias_X, torch.finfo(torch.float32).min)[None, None],
        position_ids=torch.cat((torch.tensor(merged.positions), text_positions))[None],
        output_attentions=True,
        use_cache=False,
    )
    return [weights_BHXX[0] for weights_BHXX in output.attentions]


def stock_maps(recognizer: Recognizer, image, label_ids, rows: slice) -> torch.Tensor:
    """[layers, heads, patches], the mean over some rows of the sequence."""
    n_image = recognizer.config.n_image_tokens
    layers = [
        weights_HXX[:, rows, :n_image].mean(dim=1) for weights_HXX in stock_attention(recognizer, image, label_ids)
    ]
    return torch.stack(layers)


class TestLabels:
    """They are those of `label`."""

    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("ranking", RANKINGS)
    def test_labels_are_exactly_those_of_label(self, build_recognizer, make_image, ranking, seed):
        recognizer, image = build_recognizer(seed=seed), make_image(40, 30, seed)
        explanation = recognizer.explain(image, top_k=20, ranking=ranking)
        assert len(explanation.labels) > 1
        assert labels_of(explanation) == recognizer.label([image], top_k=20, ranking=ranking)[0]

    def test_labels_are_those_that_a_batch_gets(self, recognizer):
        photos = [jpeg(seed, 60 + 7 * seed, 90 - 5 * seed) for seed in range(6)]
        together = recognizer.label(photos, top_k=12)
        for photo, labels in zip(photos, together, strict=True):
            explained = labels_of(recognizer.explain(photo, top_k=12))
            assert [(label.text, label.token_ids) for label in explained] == [
                (label.text, label.token_ids) for label in labels
            ]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_labels_are_exactly_those_of_label(self, build_recognizer, make_image, dtype):
        recognizer, image = build_recognizer(dtype=dtype), make_image(28, 28)
        explanation = recognizer.explain(image, top_k=20)
        assert labels_of(explanation) == recognizer.label([image], top_k=20)[0]

    def test_one_label_is_asked_for_by_top_k(self, recognizer, make_image):
        image = make_image(28, 28, seed=3)
        assert labels_of(recognizer.explain(image, top_k=1)) == recognizer.label([image], top_k=1)[0]

    def test_the_limit_of_tokens_is_that_of_label(self, recognizer, make_image):
        image = make_image(28, 28)
        limited = labels_of(recognizer.explain(image, top_k=20, max_label_tokens=1))
        assert limited == recognizer.label([image], top_k=20, max_label_tokens=1)[0]
        assert len(limited) < len(recognizer.explain(image, top_k=20).labels)

    def test_an_image_without_any_label_still_has_the_attention_of_the_answer(self, endless_recognizer, make_image):
        explanation = endless_recognizer.explain(make_image(28, 28), top_k=5, max_label_tokens=3)
        assert explanation.labels == []
        assert explanation.answer_maps.shape == (2, 4, 2, 2)
        assert explanation.answer_maps.sum() > 0

    def test_an_unknown_ranking_is_refused(self, recognizer, make_image):
        with pytest.raises(ValueError, match="ranking is 'best'; expected one of"):
            recognizer.explain(make_image(28, 28), ranking="best")

    def test_bytes_that_are_no_image_are_refused(self, recognizer):
        with pytest.raises(ImageDecodeError, match="not a readable image"):
            recognizer.explain(b"no image at all")


class TestMaps:
    """They are the stock model's attention."""

    @pytest.mark.parametrize(("n_kv_heads", "n_blocks"), [(1, 2), (2, 1), (4, 2), (8, 3)])
    def test_maps_equal_the_stock_attention_over_the_whole_sequence(
        self, build_recognizer, make_image, n_kv_heads, n_blocks
    ):
        recognizer = build_recognizer(image_size=42, n_heads=8, n_kv_heads=n_kv_heads, n_blocks=n_blocks)
        image = make_image(50, 44)
        n_prefix = recognizer.config.n_prefix_tokens
        explanation = recognizer.explain(image, top_k=12)
        assert len({len(explained.label.token_ids) for explained in explanation.labels}) > 1
        for explained in explanation.labels:
            assert explained.maps.shape == (n_blocks, 8, 3, 3)
            assert explained.maps.dtype == torch.float32
            expected = stock_maps(recognizer, image, explained.label.token_ids[:-1], slice(n_prefix, None))
            torch.testing.assert_close(explained.maps.flatten(2), expected, atol=TOLERANCE, rtol=0)

    def test_answer_maps_equal_the_stock_attention_of_the_prompts_last_token(self, build_recognizer, make_image):
        recognizer, image = build_recognizer(image_size=42, n_kv_heads=2), make_image(44, 50)
        expected = stock_maps(recognizer, image, [], slice(-1, None))
        answer_maps = recognizer.explain(image, top_k=1).answer_maps
        torch.testing.assert_close(answer_maps.flatten(2), expected, atol=TOLERANCE, rtol=0)

    def test_the_answer_looks_at_the_image_alike_whatever_labels_are_asked_for(self, recognizer, make_image):
        image = make_image(28, 28)
        few, many = (recognizer.explain(image, top_k=top_k).answer_maps for top_k in (1, 30))
        assert torch.equal(few, many)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_maps_are_near_those_of_the_same_weights_in_float32(
        self, build_recognizer, make_image, dtype
    ):
        halved, image = build_recognizer(dtype=dtype), make_image(28, 28)
        whole = Recognizer(copy.deepcopy(halved.module).float(), halved.preprocessor, halved.tokenizer)
        got, expected = halved.explain(image).answer_maps, whole.explain(image).answer_maps
        assert got.dtype == torch.float32
        # bfloat16 keeps 8 bits; errors add up over encoder and blocks.
        torch.testing.assert_close(got, expected, atol=0.05, rtol=0)

    def test_maps_may_be_changed_in_place(self, recognizer, make_image):
        explanation = recognizer.explain(make_image(28, 28))
        explanation.labels[0].maps.mul_(2)
        assert not explanation.answer_maps.requires_grad

    @torch.no_grad()
    def test_attention_to_image_prompt_and_own_tokens_is_one_together(self, recognizer, make_pixels):
        model = recognizer.module
        image_BND = model.encode_images(make_pixels(1))
        text_BTD = model.get_input_embeddings()(torch.tensor([[*recognizer.config.prompt_ids, 20, 21]]))
        embeds_BXD = torch.cat((image_BND, text_BTD), dim=1)
        mask_XX = prefix_mask(image_BND.shape[1], embeds_BXD.shape[1], "cpu")
        for weights_HXX, _, _ in attend_blocks(model.decoder, embeds_BXD, mask_XX, None):
            torch.testing.assert_close(weights_HXX.sum(dim=-1), torch.ones(weights_HXX.shape[:2]))
            assert (weights_HXX[:, ~mask_XX] == 0).all()

    def test_the_image_gets_at_most_all_of_a_heads_attention(self, recognizer, make_image):
        explanation = recognizer.explain(make_image(28, 28), top_k=20)
        maps = torch.stack([explanation.answer_maps, *(explained.maps for explained in explanation.labels)])
        shares = maps.sum(dim=(-2, -1))
        assert (maps >= 0).all()
        assert ((shares > 0) & (shares < 1)).all()

    def test_a_head_that_is_made_to_look_at_one_patch_is_shown_looking_there(
        self, build_recognizer, make_image, monkeypatch
    ):
        recognizer = build_recognizer(image_size=56)
        plant_look(recognizer, monkeypatch, head=2, patch=6)
        explanation = recognizer.explain(make_image(56, 56), top_k=10)
        expected = torch.zeros(4, 4)
        expected[1, 2] = 1
        for maps in [explanation.answer_maps, *(explained.maps for explained in explanation.labels)]:
            torch.testing.assert_close(maps[0, 2], expected, atol=1e-3, rtol=0)
            assert maps[0, 1, 1, 2] < 0.9

    @torch.no_grad()
    def test_patches_lie_as_in_the_image(self, build_recognizer, make_pixels):
        recognizer = build_recognizer(image_size=42)
        pixels = make_pixels(1, 42)
        changed = pixels.clone()
        changed[:, :, 14:28, 28:42] += 3
        moved = (recognizer.module.encode_images(changed) - recognizer.module.encode_images(pixels)).norm(dim=-1)
        assert divmod(int(moved.argmax()), 3) == (1, 2)


def plant_look(recognizer: Recognizer, monkeypatch, head: int, patch: int) -> None:
    """Makes a head of the first block look at one patch, whatever else is there.

    Of the hidden state's first two places one marks text, the other the patch; the head's queries read the former, its
    keys the latter, both in the pair of places that rotary positions turn least.
    """
    module = recognizer.module
    encode = module.encode_images

    def marked(pixel_values):
        embeds_BND = encode(pixel_values).clone()
        embeds_BND[..., :2] = 0
        embeds_BND[:, patch, 1] = 5
        return embeds_BND

    monkeypatch.setattr(module, "encode_images", marked)
    attention = module.decoder.model.layers[0].self_attn
    size = attention.head_dim
    place = head * size + size // 2 - 1
    with torch.no_grad():
        module.get_input_embeddings().weight[:, :2] = torch.tensor([5.0, 0.0])
        for projection, read in ((attention.q_proj, 0), (attention.k_proj, 1)):
            projection.weight[head * size : (head + 1) * size] = 0
            projection.weight[place, read] = 20


class TestMergedTokens:
    """Attention to tokens that stand for several patches is that to all of these."""

    @pytest.fixture
    def patchy(self, build_recognizer) -> Recognizer:
        return build_recognizer(image_size=42, n_heads=8, n_kv_heads=2)

    def test_labels_are_exactly_those_of_label(self, patchy, make_image):
        image = make_image(50, 44)
        for ranking in ("prob", "sim"):
            explained = labels_of(patchy.explain(image, 12, ranking, image_tokens=4))
            assert explained == patchy.label([image], 12, ranking, image_tokens=4)[0]

    def test_maps_and_rollout_are_stock_attention_spread_evenly(self, patchy, make_image):
        image, n_kept, n_prompt = make_image(50, 44), 4, len(patchy.config.prompt_ids)
        merge = partial(slow_merge, n_kept=n_kept)
        embeds_BND = patchy.module.encode_images(patchy.prepare([patchy.preprocessor.view(image)]))
        merged = patchy.module.merge_image_tokens(embeds_BND.detach(), n_kept)
        token_P, sizes_N = merged.token_BP[0], merged.sizes_BN[0]
        assert sizes_N.max() > 1
        explanation = patchy.explain(image, top_k=8, image_tokens=n_kept)
        for explained in explanation.labels:
            blocks = stock_attention(patchy, image, explained.label.token_ids[:-1], merge)
            maps_LHN = torch.stack([weights_HXX[:, n_kept + n_prompt :, :n_kept].mean(dim=1) for weights_HXX in blocks])
            expected = (maps_LHN / sizes_N)[..., token_P]
            torch.testing.assert_close(explained.maps.flatten(2), expected, atol=TOLERANCE, rtol=0)
            torch.testing.assert_close(explained.maps.sum(dim=(2, 3)), maps_LHN.sum(dim=2), atol=TOLERANCE, rtol=0)
            half_residual = [(weights.mean(dim=0) + torch.eye(weights.shape[1])) / 2 for weights in blocks]
            rolled_XX = reduce(lambda below, above: above @ below, half_residual)
            rollout_N = rolled_XX[n_kept + n_prompt :, :n_kept].mean(dim=0)
            expected_P = (rollout_N / sizes_N)[token_P]
            torch.testing.assert_close(explained.rollout.flatten(), expected_P, atol=TOLERANCE, rtol=0)
        answer_LHN = torch.stack([weights_HXX[:, n_kept + n_prompt - 1, :n_kept] for weights_HXX in blocks])
        expected = (answer_LHN / sizes_N)[..., token_P]
        torch.testing.assert_close(explanation.answer_maps.flatten(2), expected, atol=TOLERANCE, rtol=0)


class TestRollout:
    """Attention through all blocks."""

    @pytest.mark.parametrize("n_blocks", [1, 3])
    def test_rollout_equals_the_product_of_the_blocks_matrices(self, build_recognizer, make_image, n_blocks):
        recognizer = build_recognizer(image_size=42, n_heads=8, n_kv_heads=2, n_blocks=n_blocks)
        image, n_image = make_image(42, 42), recognizer.config.n_image_tokens
        for explained in recognizer.explain(image, top_k=12).labels:
            blocks = stock_attention(recognizer, image, explained.label.token_ids[:-1])
            half_residual = [(weights.mean(dim=0) + torch.eye(weights.shape[1])) / 2 for weights in blocks]
            rolled_XX = reduce(lambda below, above: above @ below, half_residual)
            expected_N = rolled_XX[recognizer.config.n_prefix_tokens :, :n_image].mean(dim=0)
            torch.testing.assert_close(explained.rollout.flatten(), expected_N, atol=TOLERANCE, rtol=0)

    def test_of_one_block_it_is_half_of_the_mean_over_heads(self, build_recognizer, make_image):
        recognizer = build_recognizer(n_blocks=1, end_share=1.0)
        explained = recognizer.explain(make_image(28, 28)).labels[0]
        assert len(explained.label.token_ids) == 2
        torch.testing.assert_close(explained.rollout, explained.maps[0].mean(dim=0) / 2)


class TestView:
    """The part of the photograph that the model saw."""

    @pytest.mark.parametrize(
        ("size", "box"),
        [
            ((280, 280), (0, 0, 280, 280)),
            ((560, 280), (140, 0, 420, 280)),
            ((280, 560), (0, 140, 280, 420)),
            ((100, 60), (20, 0, 80, 60)),
        ],
    )
    def test_the_box_is_the_centre_square(self, recognizer, make_image, size, box):
        # A pixel of the crop may be missing at the long side, and the crop may lie half a pixel aside.
        tolerance = 2 * min(size) / recognizer.preprocessor.image_size
        assert recognizer.explain(make_image(*size)).box == pytest.approx(box, abs=tolerance)

    @pytest.mark.parametrize("size", [(61, 90), (90, 61), (300, 70), (33, 500), (64, 64), (20, 14), (1, 9)])
    def test_the_view_shows_what_the_crop_shows(self, recognizer, size):
        photo = Image.open(BytesIO(jpeg(3, *size)))
        view = recognizer.explain(photo).view.resize((28, 28), Image.Resampling.BICUBIC)
        crop = recognizer.preprocessor.view(photo)
        difference = np.abs(np.asarray(view).astype(int) - crop.astype(int))
        assert difference.mean() < 6

    def test_each_label_of_several_squares_has_the_maps_of_its_own(self, recognizer, make_image):
        photo = make_image(84, 28)
        explanation = recognizer.explain(photo, top_k=12, views="whole")
        assert labels_of(explanation) == recognizer.label([photo], 12, views="whole")[0]
        assert {explained.label.view for explained in explanation.labels} == {0, 1, 2}
        assert [seen.box for seen in explanation.views] == [(0, 0, 28, 28), (28, 0, 56, 28), (56, 0, 84, 28)]
        alone = [recognizer.explain(photo.crop(tuple(map(int, seen.box))), top_k=4) for seen in explanation.views]
        for seen, own in zip(explanation.views, alone, strict=True):
            torch.testing.assert_close(seen.answer_maps, own.answer_maps, atol=TOLERANCE, rtol=0)
            torch.testing.assert_close(seen.answer_rollout, own.answer_rollout, atol=TOLERANCE, rtol=0)
            assert np.array_equal(np.asarray(seen.image), np.asarray(own.view))
        for explained in explanation.labels:
            (own,) = [each for each in alone[explained.label.view].labels if each.label.text == explained.label.text]
            torch.testing.assert_close(explained.maps, own.maps, atol=TOLERANCE, rtol=0)
            torch.testing.assert_close(explained.rollout, own.rollout, atol=TOLERANCE, rtol=0)

    @pytest.mark.parametrize("orientation", list(STORED_AS))
    def test_a_turned_photograph_is_shown_upright(self, recognizer, make_image, orientation):
        upright = make_image(80, 50)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        turn = STORED_AS[orientation]
        stored = encode(upright if turn is None else upright.transpose(turn), "PNG", exif=exif)
        got, expected = recognizer.explain(stored), recognizer.explain(upright)
        assert got.box == expected.box
        assert np.array_equal(np.asarray(got.view), np.asarray(expected.view))
        assert labels_of(got) == labels_of(expected)

    def test_a_turned_photograph_stays_as_stored_where_exif_is_not_honoured(self, recognizer, make_image):
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        stored = make_image(80, 50)
        careless = Recognizer(
            recognizer.module, replace(recognizer.preprocessor, honour_exif=False), recognizer.tokenizer
        )
        got, expected = careless.explain(encode(stored, "PNG", exif=exif)), recognizer.explain(stored)
        assert np.array_equal(np.asarray(got.view), np.asarray(expected.view))
        assert labels_of(got) == labels_of(expected)

    @pytest.mark.parametrize(("size", "side"), [((2000, 1000), 448), ((500, 448), 448), ((96, 72), 72), ((1, 40), 1)])
    def test_the_view_has_at_most_448_pixels_and_no_more_than_the_photograph(self, recognizer, make_image, size, side):
        assert recognizer.explain(make_image(*size), top_k=1).view.size == (side, side)
