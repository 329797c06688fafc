"""Tokens that open a label, tokens that close one, and spellings."""

from __future__ import annotations

import pytest

from model.hub.label_tokens import LabelTokens, fold_label
from model.hub.options import HubOptions

RAW = ["<eos>", "<img>", "▁dog", "▁Dog", "dog", "▁the", "▁7", ",", "▁,", "),", "\n", ";", "▁(", ".", "▁cat's", '"']


class ListTokenizer:
    """A tokenizer of these tokens in SentencePiece's manner; the first two are special."""

    def __len__(self):
        return len(RAW)

    def convert_ids_to_tokens(self, ids):
        return [RAW[token_id] for token_id in ids]

    def decode(self, ids, skip_special_tokens=False):
        kept = [RAW[token_id] for token_id in ids if not (skip_special_tokens and token_id < 2)]
        return "".join(kept).replace("▁", " ")

    def batch_decode(self, batch, skip_special_tokens=False):
        return [self.decode(ids, skip_special_tokens) for ids in batch]


def tokens(is_spaced: bool = True, vocab_size: int = 20, **options) -> LabelTokens:
    return LabelTokens(ListTokenizer(), HubOptions(**options), [0], vocab_size, is_spaced)


def ids(*texts: str) -> list[int]:
    return [RAW.index(text) for text in texts]


def opening(found: LabelTokens) -> set[str]:
    assert found.opens_V is not None
    return {RAW[place] for place in found.opens_V.nonzero()[:, 0].tolist()}


def test_every_token_that_holds_a_mark_closes_a_label_and_so_does_the_end_of_the_turn():
    assert tokens().closing_ids == sorted(ids("<eos>", ",", "▁,", "),", "\n", ";"))


def test_the_marks_are_a_setting():
    assert tokens(closes=";").closing_ids == sorted(ids("<eos>", ";"))


def test_words_with_their_space_open_a_label_but_articles_numbers_and_marks_do_not():
    assert opening(tokens()) == {"▁dog", "▁Dog", "▁cat's"}


def test_behind_a_line_break_words_open_a_label_without_their_space_too():
    assert opening(tokens(is_spaced=False)) == {"▁dog", "▁Dog", "dog", "▁cat's"}


def test_the_models_logits_may_be_more_than_the_tokenizers_tokens():
    assert tokens(vocab_size=32).opens_V.shape == (32,)


def test_any_token_may_open_a_label_where_that_is_set():
    assert tokens(opens="any").opens_V is None


@pytest.mark.parametrize(
    ("texts", "label"),
    [
        (["▁dog", ","], "dog"),
        (["▁dog", "▁(", "dog", "),"], "dog (dog)"),
        (["▁dog", "),"], "dog"),
        (["▁cat's", "\n"], "cat's"),
        (["▁dog", ".", "<eos>"], "dog"),
        (['"', "dog", '"', ","], "dog"),
        ([","], ""),
        (["▁dog"], "dog"),
    ],
)
def test_a_label_is_spelled_without_what_ends_it_quotes_and_a_full_stop(texts, label):
    assert tokens().spell(tuple(ids(*texts))) == label


@pytest.mark.parametrize("spelling", ["dog", "Dog", "a dog", "The  DOG", "\uff44og"])
def test_case_an_article_width_and_spaces_do_not_tell_labels_apart(spelling):
    assert fold_label(spelling) == "dog"


@pytest.mark.parametrize("other", ["dogs", "anteater", "theatre"])
def test_other_words_stay_apart(other):
    assert fold_label(other) == other
