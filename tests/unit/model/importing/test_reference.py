"""Weights under the public checkpoint's names, made here from a random model by the inverse mapping."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig

from model import RecognizerConfig, RecognizerModel
from model.importing.reference import CheckpointError, interleaved_to_half_split, recognizer_from_reference

N_VISION_HEADS = 4
N_DECODER_HEADS = 4
PUBLIC_NAMES = [
    (r"projector\.", "vision_encoder.proj."),
    (r"vision_encoder\.embeddings\.class_embedding", "vision_encoder.class_embedding"),
    (r"vision_encoder\.embeddings\.position_embedding\.weight", "vision_encoder.positional_embedding"),
    (r"vision_encoder\.embeddings\.patch_embedding\.", "vision_encoder.conv1."),
    (r"vision_encoder\.pre_layrnorm\.", "vision_encoder.ln_pre."),
    (r"vision_encoder\.post_layernorm\.", "vision_encoder.ln_post."),
    (r"vision_encoder\.encoder\.layers\.(\d+)\.", r"vision_encoder.transformer.resblocks.\1."),
    (r"(resblocks\.\d+\.)self_attn\.out_proj\.", r"\1attn.out_proj."),
    (r"layer_norm(\d)\.", r"ln_\1."),
    (r"mlp\.fc1\.", "mlp.c_fc."),
    (r"mlp\.fc2\.", "mlp.c_proj."),
    (r"decoder\.model\.embed_tokens\.", "language_decoder.tok_embeddings."),
    (r"decoder\.model\.norm\.", "language_decoder.norm."),
    (r"decoder\.lm_head\.", "language_decoder.output."),
    (r"decoder\.model\.layers\.", "language_decoder.layers."),
    (r"self_attn\.([qkvo])_proj\.", r"attention.w\1."),
    (r"mlp\.gate_proj\.", "feed_forward.w1."),
    (r"mlp\.down_proj\.", "feed_forward.w2."),
    (r"mlp\.up_proj\.", "feed_forward.w3."),
    (r"input_layernorm\.", "attention_norm."),
    (r"post_attention_layernorm\.", "ffn_norm."),
]


def half_split_to_interleaved(weight: Tensor, head_size: int) -> Tensor:
    """Row r of a head's first half becomes row 2r, row r of its second half row 2r + 1."""
    interleaved = torch.empty_like(weight)
    for head_start in range(0, len(weight), head_size):
        half = head_size // 2
        for row in range(half):
            interleaved[head_start + 2 * row] = weight[head_start + row]
            interleaved[head_start + 2 * row + 1] = weight[head_start + half + row]
    return interleaved


def in_public_names(module: RecognizerModel) -> dict[str, Tensor]:
    """The model's weights as the public checkpoint names and orders them."""
    weights = dict(module.state_dict())
    public = {}
    for block in range(module.config.vision_config.num_hidden_layers):
        for kind in ("weight", "bias"):
            start = f"vision_encoder.encoder.layers.{block}.self_attn."
            chunks = [weights.pop(f"{start}{which}_proj.{kind}") for which in "qkv"]
            public[f"vision_encoder.transformer.resblocks.{block}.attn.in_proj_{kind}"] = torch.cat(chunks)
    head_size = module.config.text_config.hidden_size // N_DECODER_HEADS
    for name, weight in weights.items():
        public_name = name
        for pattern, replacement in PUBLIC_NAMES:
            public_name = re.sub(pattern, replacement, public_name)
        is_rotated = name.startswith("decoder") and ("q_proj" in name or "k_proj" in name)
        public[public_name] = half_split_to_interleaved(weight, head_size) if is_rotated else weight
    return public


def load(state_dict, recognizer):
    return recognizer_from_reference(
        state_dict,
        tokenizer=recognizer.tokenizer,
        prompt_ids=recognizer.config.prompt_ids,
        delimiter_id=recognizer.config.delimiter_id,
        n_vision_heads=N_VISION_HEADS,
        n_decoder_heads=N_DECODER_HEADS,
        rms_norm_eps=recognizer.config.text_config.rms_norm_eps,
        image_size=28,
    )


@pytest.fixture(scope="module")
def public_weights(recognizer):
    return in_public_names(recognizer.module)


def test_public_names_are_those_of_the_public_checkpoint(public_weights):
    block_names = {name for name in public_weights if re.search(r"\.1\.", name)}
    vision = "vision_encoder.transformer.resblocks.1."
    decoder = "language_decoder.layers.1."
    assert block_names == {
        *(f"{vision}attn.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
        *(
            f"{vision}{part}.{kind}"
            for part in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
            for kind in ("weight", "bias")
        ),
        *(f"{decoder}attention.w{which}.weight" for which in "qkvo"),
        *(f"{decoder}feed_forward.w{which}.weight" for which in "123"),
        *(f"{decoder}{norm}.weight" for norm in ("attention_norm", "ffn_norm")),
    }


def test_weights_in_public_names_give_the_model_back(recognizer, public_weights):
    loaded = load(public_weights, recognizer).module.state_dict()
    expected = recognizer.module.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in expected.items())


def test_weights_in_public_names_give_the_same_labels(recognizer, public_weights, make_pixels):
    pixels = make_pixels(2)
    assert load(public_weights, recognizer).label_pixels(pixels) == recognizer.label_pixels(pixels)


@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_grouped_keys_in_public_names_give_the_model_back(build_recognizer, n_kv_heads):
    recognizer = build_recognizer(n_kv_heads=n_kv_heads)
    loaded = load(in_public_names(recognizer.module), recognizer).module.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in recognizer.module.state_dict().items())


def test_weights_keep_their_dtype(recognizer, public_weights):
    halved = {name: weight.bfloat16() for name, weight in public_weights.items()}
    assert load(halved, recognizer).dtype == torch.bfloat16


def test_the_temperature_of_clip_is_left_out(recognizer, public_weights):
    loaded = load({**public_weights, "vision_encoder.logit_scale": torch.tensor(1.0)}, recognizer)
    assert not any("logit_scale" in name for name in loaded.module.state_dict())


@pytest.mark.parametrize(
    "name",
    [
        "language_decoder.layers.1.attention.wq.weight",
        "language_decoder.tok_embeddings.weight",
        "vision_encoder.transformer.resblocks.1.attn.in_proj_bias",
        "vision_encoder.proj.weight",
    ],
)
def test_a_missing_weight_is_named(recognizer, public_weights, name):
    without = {key: weight for key, weight in public_weights.items() if key != name}
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load(without, recognizer)


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.state",
        "vision_encoder.surplus.weight",
        "vision_encoder.transformer.resblocks.0.surplus.weight",
        "language_decoder.surplus.weight",
        "language_decoder.layers.0.attention.surplus.weight",
    ],
)
def test_an_unknown_weight_is_named(recognizer, public_weights, name):
    with pytest.raises(CheckpointError, match=f"unknown weight '{re.escape(name)}'"):
        load({**public_weights, name: torch.zeros(1)}, recognizer)


def test_a_left_over_weight_is_named(recognizer, public_weights):
    surplus = {"language_decoder.norm.bias": torch.zeros(32)}
    with pytest.raises(CheckpointError, match=r"left over: language_decoder\.norm\.bias"):
        load({**public_weights, **surplus}, recognizer)


def test_a_weight_of_the_wrong_shape_is_named_with_both_shapes(recognizer, public_weights):
    wrong = {"language_decoder.layers.0.feed_forward.w2.weight": torch.zeros(32, 47)}
    with pytest.raises(CheckpointError, match=r"feed_forward\.w2\.weight .* is \[32, 47\], expected \[32, 48\]"):
        load({**public_weights, **wrong}, recognizer)


def test_a_gap_in_the_blocks_is_refused(recognizer, public_weights):
    renumbered = {name.replace("resblocks.1.", "resblocks.2."): weight for name, weight in public_weights.items()}
    with pytest.raises(CheckpointError, match=r"\[0, 2\]; expected 0 to 2 without gaps"):
        load(renumbered, recognizer)


def test_reordering_undoes_interleaved_rotary_pairs():
    weight = torch.arange(16.0).view(8, 2)
    assert torch.equal(interleaved_to_half_split(half_split_to_interleaved(weight, 4), n_heads=2), weight)


def test_the_full_size_has_the_published_number_of_parameters():
    vision = CLIPVisionConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        image_size=224,
        patch_size=14,
    )
    text = LlamaConfig(
        hidden_size=4096, num_hidden_layers=6, num_attention_heads=32, intermediate_size=11008, vocab_size=32002
    )
    with torch.device("meta"):
        module = RecognizerModel(RecognizerConfig(vision_config=vision, text_config=text, prompt_ids=[1]))
    assert sum(parameter.numel() for parameter in module.parameters()) == 1_783_838_720
