"""How a vision-language model of the hub is asked for labels. This module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INSTRUCTION = "List the objects in this picture, separated by commas. Answer with their names alone."
OPENS = ("words", "any")
IMAGE_BACKENDS = ("pil", "torchvision")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubOptions:
    """How a vision-language model is asked for labels, and what counts as one. All of it decides the labels."""

    instruction: str = INSTRUCTION
    """What the user says to the model beside the picture."""
    answer: str = "Objects:"
    """The beginning of the model's answer, without a space at its end. A label's first token follows it."""
    raw_prompt: str = ""
    """All text beside the picture, for a model without a chat template; empty takes the one its kind is known by."""
    closes: str = ",;\n"
    """Characters that end a label. So does the end of the model's turn."""
    opens: str = "words"
    """First tokens of a label: words, which begin with a letter and are no article or the like, or any."""
    image_options: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the model's image processor, such as {do_image_splitting = false}, beside those of its kind."""
    image_backend: str = "pil"
    """What resizes pictures, pil or torchvision: they differ by a grey level or two."""
    max_view_pixels: int = 2_000_000
    """Larger pictures are made so small before the model's own preprocessing."""
