"""Labels and prompts as token ids, as the decoder writes and reads them."""

from __future__ import annotations

import copy

import pytest

from model import Recognizer
from model.training.from_scratch import new_recognizer, train_tokenizer
from model.training.label_tokens import label_token_ids, prompt_token_ids
from model.training.objective import PARAPHRASES, PROMPT_TEXT
from tests.fixtures.recognizers.tiny_recognizer import TINY_SIZES


@pytest.fixture(scope="module")
def new() -> Recognizer:
    """A recognizer with a vocabulary of its own, not to be changed."""
    tokenizer = train_tokenizer(["dog"] * 50 + ["cat"] * 40 + ["traffic light"] * 30, 512)
    return new_recognizer(tokenizer=tokenizer, **TINY_SIZES, seed=0)


class TestLabelTokens:
    """Labels as the decoder writes them."""

    @pytest.mark.parametrize("label", ["dog", "traffic light", "größe", "犬"])
    def test_a_labels_tokens_spell_it(self, new: Recognizer, label: str) -> None:
        assert new.tokenizer.decode(label_token_ids(new.tokenizer, label, new.config)).strip() == label

    @pytest.mark.parametrize("label", ["dog,", "dog, cat", "1,000", ",", ",dog"])
    def test_a_label_that_holds_the_delimiter_cannot_be_written(self, new: Recognizer, label: str) -> None:
        assert label_token_ids(new.tokenizer, label, new.config) == []

    def test_a_label_may_have_as_many_tokens_as_the_model_writes_and_no_more(self, new: Recognizer) -> None:
        limit = new.config.max_label_tokens
        assert len(label_token_ids(new.tokenizer, " ".join(["dog"] * limit), new.config)) == limit
        assert label_token_ids(new.tokenizer, " ".join(["dog"] * (limit + 1)), new.config) == []

    def test_an_empty_label_has_no_tokens(self, new: Recognizer) -> None:
        assert label_token_ids(new.tokenizer, "", new.config) == []


class TestPrompts:
    """Other prompts for the same model."""

    def test_the_models_own_text_gives_the_models_own_prompt(self, new: Recognizer) -> None:
        assert prompt_token_ids(new.tokenizer, new.config, [PROMPT_TEXT]) == [new.config.prompt_ids]

    def test_paraphrases_keep_the_lead_and_spell_their_text(self, new: Recognizer) -> None:
        prompts = prompt_token_ids(new.tokenizer, new.config, PARAPHRASES)
        assert len({tuple(prompt) for prompt in prompts}) == len(PARAPHRASES)
        for text, prompt in zip(PARAPHRASES, prompts, strict=True):
            assert prompt[:2] == new.config.prompt_ids[:2]
            assert new.tokenizer.decode(prompt[2:]) == f" {text}"

    def test_paraphrases_end_with_the_answer_token(self, new: Recognizer) -> None:
        prompts = prompt_token_ids(new.tokenizer, new.config, PARAPHRASES)
        assert {prompt[-1] for prompt in prompts} == {new.config.prompt_ids[-1]}

    @pytest.mark.parametrize("text", ["What is in the image", "The objects in the image", "are"])
    def test_a_model_with_a_foreign_prompt_is_an_error_that_says_what_to_do(self, new: Recognizer, text: str) -> None:
        config = copy.deepcopy(new.config)
        config.prompt_ids = [*config.prompt_ids[:2], *new.tokenizer.encode(text, add_special_tokens=False)]
        with pytest.raises(
            ValueError, match=r'does not end in the tokens .*; paraphrases need that, .*prompts = "fixed"'
        ):
            prompt_token_ids(new.tokenizer, config, PARAPHRASES)
