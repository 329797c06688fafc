"""Explanations of a recognizer with random weights, and texts that nobody should trust."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model import Explanation, Label, Recognizer
from tests.fixtures.corpus import jpeg

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "\u202eright to left\u2066",
    "x" * 10_000,
    "two\nlines\x00\u2028",
    "狗 🐕",
]


@pytest.fixture(scope="session")
def explanation(tiny_model: Path) -> Explanation:
    explanation = Recognizer.from_pretrained(tiny_model, device="cpu").explain(jpeg(1), top_k=6)
    assert len(explanation.labels) > 2
    return explanation


@pytest.fixture(scope="session")
def of_squares(tiny_model: Path) -> Explanation:
    """An explanation of a wide photograph that was seen in two squares."""
    explanation = Recognizer.from_pretrained(tiny_model, device="cpu").explain(jpeg(1, 96, 64), top_k=12, views="whole")
    assert {explained.label.view for explained in explanation.labels} == {0, 1}
    return explanation


def called(explanation: Explanation, text: str, score: float = 0.5) -> Explanation:
    """The explanation with another text and score of its best label."""
    label = Label(text, score, (20, 8), (0.5, 0.9), True)
    return replace(explanation, labels=[replace(explanation.labels[0], label=label), *explanation.labels[1:]])
