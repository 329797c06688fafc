"""A new recognizer: its vocabulary and its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Recognizer
from model.training.from_scratch import DELIMITER, new_recognizer, train_tokenizer
from model.training.objective import PARAPHRASES, PROMPT_TEXT

CORPUS = ["dog"] * 50 + ["cat"] * 40 + ["traffic light"] * 30 + ["tie-dye t-shirt"]
BuildNew = Callable[..., Recognizer]
# Two special tokens and one for each byte.
SMALLEST_VOCABULARY = 258


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(CORPUS, 512)


@pytest.fixture(scope="module")
def build_new(tokenizer: Any) -> BuildNew:
    """A function that makes a tiny new recognizer, 4 image tokens."""

    def build(seed: int = 0, **sizes: int) -> Recognizer:
        values = {
            "image_size": 28,
            "patch_size": 14,
            "vision_width": 16,
            "vision_blocks": 1,
            "vision_heads": 2,
            "decoder_width": 16,
            "decoder_blocks": 2,
            "decoder_heads": 2,
            **sizes,
        }
        return new_recognizer(tokenizer=tokenizer, seed=seed, **values)

    return build


@pytest.fixture(scope="module")
def new(build_new: BuildNew) -> Recognizer:
    """One new recognizer for tests that do not change it."""
    return build_new()


class TestTokenizer:
    """The vocabulary that is learned from labels."""

    @settings(max_examples=200)
    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
    def test_any_text_comes_back_from_its_tokens(self, tokenizer: Any, text: str) -> None:
        ids = tokenizer.encode(text, add_special_tokens=False)
        # A word is learned with the blank before it: a text gets one in front, unless it begins with white space.
        assert tokenizer.decode(ids) in (text, f" {text}")

    @pytest.mark.parametrize("text", ["größe", "犬", "🐙 octopus", "naïve café", "é", "کتاب", "a\tb", "x" * 300])
    def test_texts_of_other_scripts_come_back_from_their_tokens(self, tokenizer: Any, text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == f" {text}"

    @pytest.mark.parametrize("word", ["dog", "cat", "traffic", "light"])
    def test_a_frequent_word_has_one_token(self, tokenizer: Any, word: str) -> None:
        assert len(tokenizer.encode(word, add_special_tokens=False)) == 1

    def test_a_word_is_the_same_token_wherever_it_stands(self, tokenizer: Any) -> None:
        (light,) = tokenizer.encode("light", add_special_tokens=False)
        assert tokenizer.encode("traffic light", add_special_tokens=False)[-1] == light

    def test_every_word_of_the_prompts_has_one_token(self, tokenizer: Any) -> None:
        for text in PARAPHRASES:
            assert len(tokenizer.encode(text, add_special_tokens=False)) == len(text.split())

    @pytest.mark.parametrize("vocab_size", [SMALLEST_VOCABULARY, 270, 300])
    def test_it_has_no_more_tokens_than_asked_for(self, vocab_size: int) -> None:
        assert len(train_tokenizer(CORPUS, vocab_size)) == vocab_size

    def test_it_has_fewer_tokens_where_the_labels_need_fewer(self, tokenizer: Any) -> None:
        assert SMALLEST_VOCABULARY < len(tokenizer) < 512

    def test_the_same_labels_give_the_same_vocabulary(self, tokenizer: Any) -> None:
        assert train_tokenizer(CORPUS, 512).get_vocab() == tokenizer.get_vocab()


class TestRecognizer:
    """The model that training starts from."""

    def test_the_same_seed_gives_the_same_weights(self, build_new: BuildNew, new: Recognizer) -> None:
        again = build_new(seed=0).module.state_dict()
        assert all(torch.equal(value, again[name]) for name, value in new.module.state_dict().items())

    def test_another_seed_gives_other_weights(self, build_new: BuildNew, new: Recognizer) -> None:
        other = build_new(seed=1).module
        assert not torch.equal(other.projector.weight, new.module.projector.weight)
        assert not torch.equal(other.get_input_embeddings().weight, new.module.get_input_embeddings().weight)

    def test_it_has_the_sizes_asked_for(self, build_new: BuildNew) -> None:
        config = build_new(
            image_size=42, vision_width=24, vision_blocks=3, vision_heads=4, decoder_width=48, decoder_blocks=1
        ).config
        vision, text = config.vision_config, config.text_config
        assert (config.n_image_tokens, vision.hidden_size, vision.num_hidden_layers) == (9, 24, 3)
        assert (vision.num_attention_heads, text.hidden_size, text.num_hidden_layers) == (4, 48, 1)
        assert text.intermediate_size == 128

    def test_its_prompt_is_image_begin_and_the_published_words(self, new: Recognizer) -> None:
        assert new.tokenizer.convert_ids_to_tokens(new.config.prompt_ids[:2]) == ["<|image|>", "<s>"]
        assert new.tokenizer.decode(new.config.prompt_ids[2:]) == f" {PROMPT_TEXT}"

    def test_its_delimiter_spells_the_delimiter(self, new: Recognizer) -> None:
        assert new.tokenizer.decode([new.config.delimiter_id]) == DELIMITER

    def test_matrices_begin_with_the_deviation_of_their_inputs(self, build_new: BuildNew) -> None:
        module = build_new(vision_width=64, decoder_width=64).module
        layer = module.decoder.model.layers[0]
        expected = {
            module.projector: 1 / 8,
            module.vision_encoder.encoder.layers[0].mlp.fc1: 1 / 8,
            layer.self_attn.q_proj: 1 / 8,
            layer.mlp.up_proj: 1 / 8,
            module.get_input_embeddings(): 0.05,
        }
        for matrix, deviation in expected.items():
            # 4,096 draws or more: a deviation of the deviation of 1.1 %.
            assert matrix.weight.std().item() == pytest.approx(deviation, rel=0.06)

    def test_the_encoders_blocks_add_nothing_at_first(self, new: Recognizer, make_pixels) -> None:
        encoder = new.module.vision_encoder
        patches = encoder.pre_layrnorm(encoder.embeddings(make_pixels(3)))
        assert torch.equal(encoder(pixel_values=make_pixels(3)).last_hidden_state, patches)

    def test_the_answer_begins_as_the_mean_of_what_it_sees(self, build_new: BuildNew, make_pixels) -> None:
        module = build_new(decoder_blocks=1).module
        with torch.no_grad():
            module.decoder.model.layers[0].self_attn.q_proj.weight.zero_()
            image_BND = module.encode_images(make_pixels(3))
            prompt_PD = module.get_input_embeddings()(torch.tensor(module.config.prompt_ids))
            seen_BSD = torch.cat((image_BND, prompt_PD.expand(3, -1, -1)), dim=1)
            normed_BSD = seen_BSD / (seen_BSD.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            expected_BD = normed_BSD.mean(1) + prompt_PD[-1]
            expected_BD /= (expected_BD.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            torch.testing.assert_close(module.prefill(make_pixels(3)).answer_BD, expected_BD, rtol=1e-4, atol=1e-5)

    def test_it_labels_the_same_after_it_was_saved_and_loaded(
        self, new: Recognizer, make_pixels, tmp_path: Path
    ) -> None:
        new.save_pretrained(tmp_path)
        loaded = Recognizer.from_pretrained(tmp_path, device="cpu")
        options = {"top_k": 5, "max_label_tokens": 3, "keep_unfinished": True}
        labels = new.label_pixels(make_pixels(3), **options)
        assert all(labels)
        assert loaded.label_pixels(make_pixels(3), **options) == labels

    def test_its_tokenizer_reads_the_same_after_it_was_saved_and_loaded(self, new: Recognizer, tmp_path: Path) -> None:
        new.save_pretrained(tmp_path)
        loaded = Recognizer.from_pretrained(tmp_path, device="cpu")
        for text in (*PARAPHRASES, "dog", "it 's , a . dog", "größe 🐙"):
            ids = new.tokenizer.encode(text, add_special_tokens=False)
            assert loaded.tokenizer.encode(text, add_special_tokens=False) == ids
            assert loaded.tokenizer.decode(ids) == new.tokenizer.decode(ids)
