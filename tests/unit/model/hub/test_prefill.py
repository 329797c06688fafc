"""The prefill of hub models: what it leaves for branches, and which models it refuses."""

from __future__ import annotations

import pytest
import torch
import transformers as tf

from model.hub.prefill import prefill
from tests.fixtures.recognizers.tiny_vlms import IMAGE, SQUARE, TEXT, build_vlm, merge


@pytest.fixture(scope="module")
def qwen():
    return build_vlm("qwen2_vl")


@torch.inference_mode()
def test_first_logits_are_those_of_the_last_token(qwen):
    inputs = merge([qwen.make_inputs(9, 0), qwen.make_inputs(4, 1)])
    prefix = prefill(qwen.model, inputs)
    expected = [qwen.model(**qwen.make_inputs(n_words, seed)).logits[0, -1] for n_words, seed in ((9, 0), (4, 1))]
    assert prefix.logits_BV.numpy() == pytest.approx(torch.stack(expected).numpy(), abs=1e-4)


@torch.inference_mode()
def test_positions_of_a_label_go_on_where_those_of_the_prompt_end(qwen):
    # A picture of 4 x 4 patches is 4 tokens at 2 x 2 positions.
    image = qwen.make_inputs(9, 0)
    inputs = prefill(qwen.model, image).step_inputs(torch.tensor([0, 0]), 3)
    n_prompt = image["input_ids"].shape[1]
    assert inputs["position_ids"][-1].flatten().tolist() == [n_prompt - 2 + 3] * 2


@torch.inference_mode()
def test_the_mask_of_a_branch_is_that_of_its_image_and_its_own_tokens(qwen):
    images = [qwen.make_inputs(9, 0), qwen.make_inputs(4, 0)]
    inputs = prefill(qwen.model, merge(images)).step_inputs(torch.tensor([0, 1, 1]), 2)
    longest = images[0]["input_ids"].shape[1]
    assert inputs["attention_mask"].shape == (3, longest + 3)
    assert (inputs["attention_mask"] == 0).sum(1).tolist() == [0, 5, 5]


def test_an_encoder_with_a_decoder_is_refused():
    vision = {"depths": [1] * 4, "embed_dim": [16] * 4, "num_heads": [2] * 4, "num_groups": [2] * 4, "window_size": 4}
    text = {"model_type": "bart", "vocab_size": 120, "d_model": 48, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    config = tf.Florence2Config(vision_config=dict(vision, projection_dim=48), text_config=text | heads)
    with pytest.raises(NotImplementedError, match="Florence2ForConditionalGeneration is an encoder with a decoder"):
        prefill(tf.Florence2ForConditionalGeneration(config), {})


def test_a_model_that_generates_in_a_way_of_its_own_is_refused():
    qformer = dict(SQUARE, encoder_hidden_size=32, vocab_size=30)
    text = dict(TEXT, model_type="opt", ffn_dim=96, word_embed_proj_dim=48)
    config = tf.Blip2Config(
        vision_config=SQUARE, qformer_config=qformer, text_config=text, num_query_tokens=8, image_token_index=IMAGE
    )
    with pytest.raises(NotImplementedError, match="Blip2ForConditionalGeneration generates in a way of its own"):
        prefill(tf.Blip2ForConditionalGeneration(config), {})


@torch.inference_mode()
def test_a_model_that_stores_its_image_beside_the_prompt_is_refused():
    config = tf.GitConfig(
        vision_config=SQUARE,
        vocab_size=120,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
    )
    ids = torch.tensor([[1, 30, 31]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.zeros(1, 3, 56, 56)}
    with pytest.raises(NotImplementedError, match="GitForCausalLM stores 20 slots of a prompt of 3 tokens"):
        prefill(tf.GitForCausalLM(config).eval(), inputs)
