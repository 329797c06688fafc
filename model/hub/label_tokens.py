"""Which tokens of a model's vocabulary open a label, which close it, and what a label's tokens spell.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import torch

from model.hub.options import HubOptions

# Marks of a word's beginning: SentencePiece's, that of byte-level BPE, a space.
_WORD_MARKS = "▁Ġ "
# They begin an answer often and are no label: "a dog", "the sky", "there is".
_FUNCTION_WORDS = frozenset(
    "a an the this that these those there here it its he she they we i you in on at of to from with and or but not no "
    "none is are was be has have some any several many two three four five one image picture photo".split()
)
_ARTICLE = re.compile(r"^(a|an|the)\s+")
_QUOTES = "\"'`*\u201c\u201d\u2018\u2019\u00ab\u00bb\u2022-\u2013 \t"


class LabelTokens:
    """The tokens of labels: which of them open one, which close one, how they are spelled.

    Attributes:
        closing_ids: tokens that have a character which ends a label, and those that end the model's turn.
        opens_V: whether a label may begin with each token; None where any may.
    """

    def __init__(
        self, tokenizer: Any, options: HubOptions, eos_ids: Iterable[int], vocab_size: int, is_spaced: bool
    ) -> None:
        """
        Args:
            tokenizer: of transformers.
            eos_ids: tokens that end the model's turn.
            vocab_size: logits of the model, which may have more than the tokenizer has tokens.
            is_spaced: whether a label follows a space, so that its first token begins a word.
        """
        self._tokenizer = tokenizer
        self._closes = options.closes
        n_tokens = min(len(tokenizer), vocab_size)
        texts = tokenizer.batch_decode([[token_id] for token_id in range(n_tokens)], skip_special_tokens=False)
        closing = {place for place, text in enumerate(texts) if any(mark in text for mark in options.closes)}
        self.closing_ids = sorted(closing | set(eos_ids))
        self.opens_V = None
        if options.opens == "words":
            raw = tokenizer.convert_ids_to_tokens(list(range(n_tokens)))
            closed = set(self.closing_ids)
            opening = [
                place
                for place, (token, text) in enumerate(zip(raw, texts, strict=True))
                if place not in closed and _opens_word(token, text, is_spaced)
            ]
            self.opens_V = torch.zeros(vocab_size, dtype=torch.bool)
            self.opens_V[opening] = True

    def spell(self, token_ids: tuple[int, ...]) -> str:
        """The label that these tokens spell, without what ends it, quotes around it and a full stop behind it."""
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        ends = [place for place in map(text.find, self._closes) if place >= 0]
        label = text[: min(ends, default=len(text))].strip(_QUOTES)
        # What ends a label may be one token with a bracket that was open before the label.
        if label.endswith(")") and "(" not in label:
            label = label[:-1]
        return label.rstrip(".").strip(_QUOTES)


def fold_label(label: str) -> str:
    """What spellings of one label have in common: case, an article, compatible characters and spaces do not count."""
    folded = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    return _ARTICLE.sub("", folded)


def _opens_word(token: str, text: str, is_spaced: bool) -> bool:
    if is_spaced and token[:1] not in _WORD_MARKS:
        return False
    word = text.strip()
    return word[:1].isalpha() and word.casefold() not in _FUNCTION_WORDS
