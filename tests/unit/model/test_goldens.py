"""The recognizer against recordings of the public implementation, where these are present."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model import ImagePreprocessor
from model.importing.reference import recognizer_from_reference
from model.nxtp.branches import sample_one_shot
from tests.fixtures.recognizers.goldens import GOLDENS, StandInTokenizer
from tests.unit.model.oracle import fast_branches

SEEDS = (1, 2)
MAX_LABEL_TOKENS = 16
# The recordings and this model run the same float32 network in another order: they differ by about 1e-5 in the logits.
# The smallest known mistake, a wrong eps in the encoder's LayerNorm, moves them by 6.4e-5.
LOGITS_ABS = 5e-5
EMBEDS_ABS = 5e-5
PROBS_ABS, PROBS_REL = 1e-5, 1e-4
SCORES_REL = 1e-4

pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"no recordings of the public implementation in {GOLDENS}")


def read_cases() -> list[tuple[int, str]]:
    """(seed, k) of every recorded sampling."""
    if not GOLDENS.is_dir():
        return []
    return [(seed, k) for seed in SEEDS for k in json.loads((GOLDENS / f"seed{seed}.json").read_text())["k"]]


each_seed = pytest.mark.parametrize("golden", SEEDS, indirect=True)
each_case = pytest.mark.parametrize(("golden", "k"), read_cases(), indirect=["golden"])


@pytest.fixture(scope="module")
def golden(request):
    """Recorded arrays and results of one seed, and the recognizer with its weights."""
    arrays = np.load(GOLDENS / f"seed{request.param}.npz")
    record = json.loads((GOLDENS / f"seed{request.param}.json").read_text())
    sizes = record["config"]
    recognizer = recognizer_from_reference(
        {name[2:]: torch.from_numpy(arrays[name]).float() for name in arrays if name.startswith("w/")},
        tokenizer=StandInTokenizer(record["aliases"]),
        prompt_ids=arrays["prompt_ids"].tolist(),
        delimiter_id=record["delimiter"],
        n_vision_heads=sizes["vh"],
        n_decoder_heads=sizes["heads"],
        rms_norm_eps=sizes["eps"],
        image_size=sizes["image"],
    )
    pixels = torch.from_numpy(arrays["pixel_values"]).float()
    return SimpleNamespace(arrays=arrays, record=record, recognizer=recognizer, pixels=pixels)


@torch.inference_mode()
def sampled(golden, k: str):
    prefix = golden.recognizer.module.prefill(golden.pixels)
    return fast_branches(sample_one_shot(golden.recognizer.module, prefix, int(k), MAX_LABEL_TOKENS))


def without_empty(ranked):
    return [[(text, score) for text, score in image if text] for image in ranked]


def assert_same_ranking(labels, expected):
    assert [[label.text for label in image] for image in labels] == [[text for text, _ in image] for image in expected]
    for image, expected_image in zip(labels, expected, strict=True):
        scores = [score for _, score in expected_image]
        assert [label.score for label in image] == pytest.approx(scores, rel=SCORES_REL)


@each_seed
@torch.inference_mode()
def test_image_embeds_equal_the_recorded(golden):
    embeds_BND = golden.recognizer.module.encode_images(golden.pixels)
    assert embeds_BND.numpy() == pytest.approx(golden.arrays["image_embeds"], abs=EMBEDS_ABS)


@each_seed
def test_first_logits_equal_the_recorded(golden):
    logits_BV = golden.recognizer.first_logits(golden.pixels)
    assert logits_BV.numpy() == pytest.approx(golden.arrays["first_logits"], abs=LOGITS_ABS, rel=0)


@each_case
def test_branches_have_the_recorded_tokens(golden, k):
    expected = golden.record["k"][k]["branches"]
    tokens = [[branch.token_ids for branch in image] for image in sampled(golden, k)]
    assert tokens == [[branch["tokens"] for branch in image] for image in expected]


@each_case
def test_branches_finish_as_recorded(golden, k):
    expected = golden.record["k"][k]["branches"]
    finished = [[branch.finished for branch in image] for image in sampled(golden, k)]
    assert finished == [[branch["finished"] for branch in image] for image in expected]


@each_case
def test_branches_have_the_recorded_probabilities(golden, k):
    for image, expected_image in zip(sampled(golden, k), golden.record["k"][k]["branches"], strict=True):
        for branch, expected in zip(image, expected_image, strict=True):
            assert branch.token_probs == pytest.approx(expected["probs"], abs=PROBS_ABS)
            assert branch.token_probs == pytest.approx(expected["probs"], rel=PROBS_REL)


@each_case
def test_prob_ranking_equals_the_corrected_recording(golden, k):
    expected = without_empty(golden.record["k"][k]["fixed_prob_not_reference"])
    assert_same_ranking(golden.recognizer.label_pixels(golden.pixels, top_k=int(k), ranking="prob"), expected)


@each_case
def test_sim_ranking_equals_the_recorded(golden, k):
    expected = without_empty(golden.record["k"][k]["ranked_unrounded"]["sim"])
    assert_same_ranking(golden.recognizer.label_pixels(golden.pixels, top_k=int(k), ranking="sim"), expected)


def read_preprocessing_cases() -> list[tuple[int, dict]]:
    path = GOLDENS / "preproc" / "expected.json"
    return list(enumerate(json.loads(path.read_text())["cases"])) if path.is_file() else []


@pytest.mark.parametrize(("number", "case"), read_preprocessing_cases())
def test_crops_equal_the_recorded_to_a_grey_level_and_under_former_rules_to_the_last_bit(number, case):
    image = (GOLDENS / "preproc" / case["file"]).read_bytes()
    expected = np.load(GOLDENS / "preproc" / "crops_uint8.npz")[str(number)]
    # Recorded from Pillow's resampling, which former rules have.
    assert np.array_equal(ImagePreprocessor(image_size=case["size"], pixel_rule=2).view(image), expected)
    levels = np.abs(ImagePreprocessor(image_size=case["size"]).view(image).astype(int) - expected)
    # Where torch enlarges, two levels in about one value of a million.
    assert levels.max() <= 2
    assert np.mean(levels == 2) < 3e-5


@pytest.mark.parametrize(("number", "case"), read_preprocessing_cases())
def test_normalised_pixels_sum_to_the_recorded(number, case):
    preprocessor = ImagePreprocessor(image_size=case["size"], pixel_rule=2)
    crop = preprocessor.view((GOLDENS / "preproc" / case["file"]).read_bytes())
    pixels = preprocessor.normalise(torch.from_numpy(np.stack([crop]))).double()
    # Float32 pixels, summed in float64.
    assert float(pixels.sum()) == pytest.approx(case["sum"], rel=1e-6)
    assert float(pixels.abs().sum()) == pytest.approx(case["abs_sum"], rel=1e-6)
