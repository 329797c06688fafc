"""Which models can label, decided from config.json alone."""

from __future__ import annotations

from typing import Any

import pytest

from model.fetching.architecture import NXTP_MODEL_TYPE, check_architecture
from model.fetching.refusal import ModelUnusableError
from model.nxtp.configuration import RecognizerConfig

LISTED = "; `tagstream models` lists some that can be used"


def test_the_projects_own_recognizers_are_of_the_type_that_is_accepted() -> None:
    assert RecognizerConfig.model_type == NXTP_MODEL_TYPE
    check_architecture("m", {"model_type": NXTP_MODEL_TYPE})


@pytest.mark.parametrize("kind", ["llava", "qwen3_vl", "paligemma", "gemma3", "idefics3", "mllama"])
def test_decoders_that_see_images_are_accepted(kind: str) -> None:
    check_architecture("m", {"model_type": kind})


def test_code_of_the_hub_does_not_matter_where_transformers_has_the_class() -> None:
    code = {"AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel"}
    check_architecture("m", {"model_type": "internvl", "auto_map": code})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"model_type": "moondream1", "auto_map": {"AutoModelForCausalLM": "hf_moondream.HfMoondream"}},
            "m needs code from the hub (class HfMoondream), which tagstream never runs; expected a model whose class "
            "transformers has" + LISTED,
        ),
        (
            {"model_type": "qwen3", "auto_map": {"AutoModel": ["org/code--modeling.Seeing", None]}},
            "m needs code from the hub (class Seeing), which tagstream never runs; expected a model whose class "
            "transformers has" + LISTED,
        ),
        (
            {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
            "m is a model of text (Qwen3ForCausalLM) that sees no images; expected a vision-language model" + LISTED,
        ),
        (
            {"model_type": "clip", "architectures": ["CLIPModel"]},
            "m (CLIPModel) does not write text about images; expected a model that transformers loads by "
            "AutoModelForImageTextToText" + LISTED,
        ),
        (
            {"model_type": "florence2"},
            "m cannot do one-shot sampling: Florence2ForConditionalGeneration is an encoder with a decoder, expected "
            "a decoder alone" + LISTED,
        ),
        (
            {"model_type": "pix2struct"},
            "m cannot do one-shot sampling: Pix2StructForConditionalGeneration is an encoder with a decoder, expected "
            "a decoder alone" + LISTED,
        ),
        (
            {"model_type": "blip-2"},
            "m cannot do one-shot sampling: Blip2ForConditionalGeneration generates in a way of its own, expected "
            "transformers' generate()" + LISTED,
        ),
        (
            {"model_type": "diffusion_gemma"},
            "m cannot do one-shot sampling: DiffusionGemmaForBlockDiffusion generates in a way of its own, expected "
            "transformers' generate()" + LISTED,
        ),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_other_models_are_refused_in_one_sentence(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelUnusableError) as caught:
        check_architecture("m", config)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("config", [{"model_type": "unheard_of_vl"}, {}])
def test_a_type_that_transformers_does_not_know_is_told_with_its_version(config: dict[str, Any]) -> None:
    kind = config.get("model_type")
    with pytest.raises(
        ModelUnusableError, match=rf"transformers 5\.\S+ does not know models of type {kind} \(m\); a later"
    ):
        check_architecture("m", config)


def test_a_configuration_with_values_that_its_class_does_not_take_is_told() -> None:
    with pytest.raises(ModelUnusableError, match=r"does not read config\.json of m as a llava \("):
        check_architecture("m", {"model_type": "llava", "text_config": "?"})
