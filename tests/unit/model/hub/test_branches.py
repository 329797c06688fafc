"""Branches of hub models over shared prefixes: the same as decoding each alone, without any cache.

All models are tiny and have random weights. Each image has its own number of prompt words, and the models that take
pictures of any shape get three shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import pytest
import torch

from model.ending import Ending
from model.hub import prefix_attention
from model.hub.branches import HubBranches, share_prefixes
from model.hub.prefill import HubPrefix, prefill
from model.label_trie import ListedLabels
from model.sampling import Branches, sample_branches
from model.scoring import score_labels
from tests.fixtures.recognizers.tiny_vlms import (
    ARCHITECTURES,
    END,
    IMAGE,
    START,
    VIDEO,
    VOCAB_SIZE,
    Inputs,
    TinyVlm,
    build_vlm,
    merge,
)
from tests.unit.model.hub.slow_branches import assert_same_branches, next_log_probs, slow_branches, slow_score
from tests.unit.model.test_one_shot_cost import LargestTensor

# Plain, three axes of positions, masks of their own, windows, crossed attention. Tests of the others are long.
FIRST = {"llava", "qwen3_vl", "paligemma2", "gemma3", "mllama"}
TOP_K, MAX_LABEL_TOKENS = 6, 4
# A sixth of the vocabulary. Placeholders of images are among them: the slow way would take them for images.
CLOSING = {IMAGE, START, END, VIDEO, *range(VIDEO + 3, VOCAB_SIZE, 6)}
PROMPT_WORDS = (9, 4, 6)
LABELS = [[30], [30, 31], [30, 31, 32], [30, 33], [40, 31, 32, 42, 43], [30, 31]]
# Two orders of the same float32 sums, over up to six tokens.
LOG_PROB_REL = 3e-5


def cases(architectures: Iterable[str], *before: object) -> list[object]:
    """Parameters of a test, one for each architecture."""
    return [
        pytest.param(*before, architecture, marks=() if architecture in FIRST else pytest.mark.long)
        for architecture in architectures
    ]


@lru_cache
def vlm_of(architecture: str) -> TinyVlm:
    """A model that shares prefixes."""
    vlm = build_vlm(architecture)
    share_prefixes(vlm.model)
    return vlm


def pictures(vlm: TinyVlm, words: tuple[int, ...] = PROMPT_WORDS) -> list[Inputs]:
    return [vlm.make_inputs(n_words, seed) for seed, n_words in enumerate(words)]


@lru_cache
def expected_branches(architecture: str):
    # By the attention that the model has of its own.
    vlm = build_vlm(architecture)
    return [slow_branches(vlm, image, CLOSING, TOP_K, MAX_LABEL_TOKENS) for image in pictures(vlm)]


@torch.inference_mode()
def sample(vlm: TinyVlm, images: list[Inputs], top_k: int = TOP_K, limit: int = MAX_LABEL_TOKENS) -> Branches:
    decoder = HubBranches(vlm.model, prefill(vlm.model, merge(images)))
    return sample_branches(decoder, Ending(sorted(CLOSING)), top_k, limit)


@pytest.mark.parametrize("architecture", cases(ARCHITECTURES))
def test_branches_equal_decoding_each_alone_without_a_cache(architecture):
    expected = expected_branches(architecture)
    lengths = {len(ids) for image in expected for ids, _, _ in image}
    assert len(lengths) > 1, "some branches should end before others"
    vlm = vlm_of(architecture)
    assert_same_branches(sample(vlm, pictures(vlm)), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("architecture", sorted(FIRST))
def test_on_cuda_branches_are_those_of_the_cpu(architecture, monkeypatch):
    # Convolutions are rounded to ten bits otherwise.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    vlm = build_vlm(architecture)
    share_prefixes(vlm.model.to("cuda"))
    inputs = {name: value.cuda() for name, value in merge(pictures(vlm)).items()}
    with torch.inference_mode():
        decoder = HubBranches(vlm.model, prefill(vlm.model, inputs))
        branches = sample_branches(decoder, Ending(sorted(CLOSING), "cuda"), TOP_K, MAX_LABEL_TOKENS)
    found, expected = branches.to_lists(), sample(vlm_of(architecture), pictures(vlm)).to_lists()
    assert [[ids for ids, _, _ in image] for image in found] == [[ids for ids, _, _ in image] for image in expected]


@pytest.mark.parametrize("architecture", cases(ARCHITECTURES))
def test_the_first_branch_is_what_the_model_generates(architecture):
    vlm = vlm_of(architecture)
    image = vlm.make_inputs(PROMPT_WORDS[0], 0)
    (ids, probs, _), *_ = sample(vlm, [image], limit=5).to_lists()[0]
    generated = vlm.model.generate(
        **image,
        do_sample=False,
        max_new_tokens=len(ids),
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    n_compared = len(ids) - 1
    assert generated.sequences[0, -len(ids) :].tolist()[:n_compared] == list(ids[:n_compared])
    expected = [float(logits[0].softmax(-1)[token]) for logits, token in zip(generated.logits, ids, strict=True)]
    assert list(probs[:n_compared]) == pytest.approx(expected[:n_compared], abs=1e-5, rel=1e-4)


@pytest.mark.parametrize("architecture", cases(ARCHITECTURES))
def test_images_matter_to_branches(architecture):
    vlm = vlm_of(architecture)
    images = [vlm.make_inputs(5, 0), vlm.make_inputs(5, 0) | pixels_of(vlm.make_inputs(5, 3))]
    one, other = sample(vlm, images).to_lists()
    assert one != other


def pixels_of(inputs: Inputs) -> Inputs:
    return {"pixel_values": inputs["pixel_values"]}


@pytest.mark.parametrize("architecture", ["llava", "qwen3_vl", "gemma3"])
def test_neighbours_in_the_batch_do_not_change_an_image(architecture):
    vlm = vlm_of(architecture)
    images = pictures(vlm)
    assert_same_branches(sample(vlm, images), [sample(vlm, [image]).to_lists()[0] for image in images])


@pytest.mark.parametrize("architecture", ["llava", "qwen3_5"])
def test_one_prefill_serves_several_samplings(architecture):
    vlm = vlm_of(architecture)
    with torch.inference_mode():
        decoder = HubBranches(vlm.model, prefill(vlm.model, merge(pictures(vlm))))
        ending = Ending(sorted(CLOSING))
        first = sample_branches(decoder, ending, TOP_K, MAX_LABEL_TOKENS).to_lists()
        assert sample_branches(decoder, ending, TOP_K, MAX_LABEL_TOKENS).to_lists() == first


@pytest.mark.parametrize("architecture", ["qwen2_vl", "gemma3"])
def test_a_prefill_of_other_images_in_between_changes_nothing(architecture):
    vlm = vlm_of(architecture)
    with torch.inference_mode():
        decoder = HubBranches(vlm.model, prefill(vlm.model, merge(pictures(vlm))))
        # Some models keep the positions of their latest prefill.
        prefill(vlm.model, vlm.make_inputs(12, 5))
        branches = sample_branches(decoder, Ending(sorted(CLOSING)), TOP_K, MAX_LABEL_TOKENS)
    assert_same_branches(branches, expected_branches(architecture))


def test_one_branch_of_one_image_equals_decoding_it_alone():
    vlm = vlm_of("qwen3_vl")
    image = vlm.make_inputs(7, 1)
    assert_same_branches(sample(vlm, [image], top_k=1), [slow_branches(vlm, image, CLOSING, 1, MAX_LABEL_TOKENS)])


def test_an_image_whose_branches_have_all_ended_leaves_the_others_as_they_are():
    vlm = vlm_of("llava")
    images = pictures(vlm)
    # The first token of one image closes, those of the others do not.
    first = [slow_branches(vlm, image, set(), 1, 1)[0][0][0] for image in images]
    assert first[1] not in (first[0], first[2])
    with torch.inference_mode():
        decoder = HubBranches(vlm.model, prefill(vlm.model, merge(images)))
        branches = sample_branches(decoder, Ending([first[1]]), 1, MAX_LABEL_TOKENS)
    assert branches.n_tokens_BK[1, 0] == 1
    assert_same_branches(branches, [slow_branches(vlm, image, {first[1]}, 1, MAX_LABEL_TOKENS) for image in images])


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["llava", "qwen3_vl", "paligemma2"])
def test_no_tensor_of_the_steps_is_as_large_as_a_prefix_copied_for_every_branch(architecture):
    vlm = vlm_of(architecture)
    prefix = prefill(vlm.model, merge(pictures(vlm, words=(90, 80, 85))))
    with LargestTensor() as largest:
        sample_branches(HubBranches(vlm.model, prefix), Ending(sorted(CLOSING)), TOP_K, MAX_LABEL_TOKENS)
    n_copied = prefix.cache.layers[-1].keys.numel() * TOP_K
    assert 0 < largest.n_elements < n_copied / 2


def test_a_place_that_is_kept_twice_becomes_two_branches():
    vlm = vlm_of("qwen3_5")
    image = vlm.make_inputs(6, 0)
    with torch.inference_mode():
        decoder = HubBranches(vlm.model, prefill(vlm.model, image))
        decoder.open(torch.tensor([0, 0]))
        decoder.step(torch.tensor([30, 40]))
        decoder.keep(torch.tensor([1, 0, 1]))
        got = decoder.step(torch.tensor([50, 60, 70])).log_softmax(-1)
        expected = next_log_probs(vlm, image, torch.tensor([[40, 50], [30, 60], [40, 70]]))
    assert got.numpy() == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize("architecture", cases(ARCHITECTURES))
def test_scores_of_listed_labels_equal_scoring_each_alone(architecture):
    vlm = vlm_of(architecture)
    images = pictures(vlm)
    with torch.inference_mode():
        decoder = HubBranches(vlm.model, prefill(vlm.model, merge(images)))
        scores_BL = score_labels(decoder, ListedLabels(LABELS, max_nodes=3), Ending(sorted(CLOSING)))
        expected = [[slow_score(vlm, image, label, CLOSING) for label in LABELS] for image in images]
    assert scores_BL.numpy() == pytest.approx(torch.tensor(expected).numpy(), rel=LOG_PROB_REL)


# What each mistake is, and architectures that it must show in.
def _positions_one_too_low(monkeypatch):
    right = HubPrefix.step_inputs

    def wrong(self, image_M, n_tokens):
        inputs = right(self, image_M, n_tokens)
        return inputs | {"position_ids": inputs["position_ids"] - 1}

    monkeypatch.setattr(HubPrefix, "step_inputs", wrong)


def _positions_that_stand_still(monkeypatch):
    right = HubPrefix.step_inputs

    def wrong(self, image_M, n_tokens):
        return right(self, image_M, n_tokens) | {"position_ids": right(self, image_M, 0)["position_ids"]}

    monkeypatch.setattr(HubPrefix, "step_inputs", wrong)


def _positions_that_are_slots(monkeypatch):
    right = HubPrefix.step_inputs

    def wrong(self, image_M, n_tokens):
        inputs = right(self, image_M, n_tokens)
        return inputs | {"position_ids": torch.full_like(inputs["position_ids"], self.n_slots + n_tokens)}

    monkeypatch.setattr(HubPrefix, "step_inputs", wrong)


def _padding_that_is_seen(monkeypatch):
    right = HubPrefix.step_inputs

    def wrong(self, image_M, n_tokens):
        inputs = right(self, image_M, n_tokens)
        return inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}

    monkeypatch.setattr(HubPrefix, "step_inputs", wrong)


def _own_tokens_of_a_neighbour(monkeypatch):
    right = prefix_attention.attend_from_branches

    def wrong(query, own_keys, own_values, *rest):
        return right(query, own_keys.roll(1, 0), own_values.roll(1, 0), *rest)

    monkeypatch.setattr(prefix_attention, "attend_from_branches", wrong)


def _own_tokens_but_the_last_unseen(monkeypatch):
    right = prefix_attention.attend_from_branches

    def wrong(query, own_keys, own_values, prefix_keys, prefix_values, layout, mask=None, softcap=None):
        if mask is not None:
            mask = torch.cat((mask[:, : prefix_keys.shape[2]], mask[:, -1:]), dim=1)
        return right(
            query, own_keys[:, :, -1:], own_values[:, :, -1:], prefix_keys, prefix_values, layout, mask, softcap
        )

    monkeypatch.setattr(prefix_attention, "attend_from_branches", wrong)


def _prefixes_of_other_images(monkeypatch):
    right = prefix_attention.attend_from_branches

    def wrong(query, own_keys, own_values, prefix_keys, prefix_values, *rest):
        return right(query, own_keys, own_values, prefix_keys.roll(1, 0), prefix_values.roll(1, 0), *rest)

    monkeypatch.setattr(prefix_attention, "attend_from_branches", wrong)


def _masks_ignored(monkeypatch):
    right = prefix_attention.attend_from_branches

    def wrong(query, own_keys, own_values, prefix_keys, prefix_values, layout, mask=None, softcap=None):
        return right(query, own_keys, own_values, prefix_keys, prefix_values, layout, None, softcap)

    monkeypatch.setattr(prefix_attention, "attend_from_branches", wrong)


def _softcap_ignored(monkeypatch):
    right = prefix_attention.attend_from_branches

    def wrong(query, own_keys, own_values, prefix_keys, prefix_values, layout, mask=None, softcap=None):
        return right(query, own_keys, own_values, prefix_keys, prefix_values, layout, mask)

    monkeypatch.setattr(prefix_attention, "attend_from_branches", wrong)


def _windows_ignored(monkeypatch):
    # The mask of padding alone, for every layer.
    monkeypatch.setattr(
        prefix_attention, "_as_rows", lambda mask, n_branches: torch.ones(n_branches, mask.shape[-1]).bool()
    )


MISTAKES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], tuple[str, ...]]] = {
    "positions one too low": (_positions_one_too_low, ("llava", "qwen3_vl", "smolvlm", "paligemma")),
    "positions that stand still": (_positions_that_stand_still, ("llava", "qwen2_vl", "smolvlm", "paligemma")),
    "positions that are slots": (_positions_that_are_slots, ("llava", "qwen2_vl", "qwen3_vl")),
    "padding that is seen": (_padding_that_is_seen, ("llava", "qwen3_vl", "gemma3")),
    "own tokens of a neighbour": (_own_tokens_of_a_neighbour, ("llava", "qwen3_vl", "smolvlm", "paligemma")),
    "own tokens but the last unseen": (_own_tokens_but_the_last_unseen, ("llava", "qwen3_vl", "paligemma2")),
    "prefixes of other images": (_prefixes_of_other_images, ("llava", "qwen3_vl", "paligemma", "mllama")),
    "masks ignored": (_masks_ignored, ("llava", "llava_with_window", "gemma3", "llama4")),
    "softcap ignored": (_softcap_ignored, ("paligemma2",)),
    "windows ignored": (_windows_ignored, ("llava_with_window", "gemma3", "aya_vision", "idefics2", "llama4")),
}


@pytest.mark.parametrize(
    ("mistake", "architecture"), [case for name, (_, archs) in MISTAKES.items() for case in cases(archs, name)]
)
def test_the_comparison_notices(mistake, architecture, monkeypatch):
    expected, vlm = expected_branches(architecture), vlm_of(architecture)
    MISTAKES[mistake][0](monkeypatch)
    with pytest.raises(AssertionError):
        assert_same_branches(sample(vlm, pictures(vlm)), expected)
