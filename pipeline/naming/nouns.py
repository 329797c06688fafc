"""Nouns of captions: labels where none are given."""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from functools import cache
from typing import Any

# What captions say of the picture rather than of what it shows.
NOISE_WORDS = (
    "background",
    "close",
    "copy",
    "day",
    "foreground",
    "front",
    "illustration",
    "image",
    "ounce",
    "person",
    "photo",
    "photograph",
    "photography",
    "picture",
    "set",
    "stock",
    "top",
    "vector",
    "view",
)
_MIN_LETTERS = 3
_WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*|[^\w\s]")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
# Singular, plural and uncounted common nouns in HanTa's tag set (BNC C5).
_NOUNS = frozenset({"NN0", "NN1", "NN2"})


def nouns_of(text: str, noise_words: Collection[str] = NOISE_WORDS) -> list[str]:
    """Common nouns of a text, lemmatised, in order of appearance and each once.

    Args:
        text: English, one caption a line.
        noise_words: lemmas left out; they are compared as whole words.
    """
    found: dict[str, None] = {}
    # Shops write captions for browsers, and with addresses in them.
    for sentence in _ADDRESS.sub(" ", html.unescape(text)).splitlines():
        for _, lemma, tag in _tagger().tag_sent(_WORD.findall(sentence)):
            noun = lemma.lower()
            if tag in _NOUNS and len(noun) >= _MIN_LETTERS and noun not in noise_words:
                found[noun] = None
    return list(found)


@cache
def _tagger() -> Any:
    from HanTa.HanoverTagger import HanoverTagger

    return HanoverTagger("morphmodel_en.pgz")
