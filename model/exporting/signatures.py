"""The three graphs of an exported recognizer: names, dtypes and shapes of what they take and return.

Sizes that are words may differ from call to call: of `images`; of `branches`, all images' together; of `slots`, the
branches of the image that has most; of `tokens` that a branch has had so far, which may be none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from model.nxtp.configuration import RecognizerConfig

ENCODER, PREFILL, STEP = "encoder", "prefill", "step"
# Smaller sizes than 2 would be taken for fixed ones. All differ, so that no two are taken for one.
EXAMPLE_SIZES: Mapping[str, int] = MappingProxyType({"images": 2, "branches": 5, "slots": 3, "tokens": 4})


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of a graph. Its dtype is float32 or int64."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a graph takes and returns, in order."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def describe(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {
            role: [{"name": value.name, "dtype": value.dtype, "shape": list(value.shape)} for value in values]
            for role, values in (("inputs", self.inputs), ("outputs", self.outputs))
        }


def signatures_of(config: RecognizerConfig) -> dict[str, Signature]:
    """The signature of each graph, by the graph's name."""
    vision, text = config.vision_config, config.text_config
    image_embeds = Value("image_embeds", ("images", config.n_image_tokens, text.hidden_size))
    prefix = _caches("prefix", "images", config.n_prefix_tokens, config)
    return {
        ENCODER: Signature(
            (Value("pixel_values", ("images", 3, vision.image_size, vision.image_size)),), (image_embeds,)
        ),
        PREFILL: Signature((image_embeds,), (Value("logits", ("images", text.vocab_size)), *prefix)),
        STEP: Signature(
            (
                Value("token_ids", ("branches",), "int64"),
                Value("image_of_branch", ("branches",), "int64"),
                Value("slot_of_branch", ("branches",), "int64"),
                Value("branch_of_slot", ("images", "slots"), "int64"),
                *prefix,
                *_caches("past", "branches", "tokens", config),
            ),
            (Value("logits", ("branches", text.vocab_size)), *_caches("present", "branches", "tokens + 1", config)),
        ),
    }


def _caches(stem: str, owners: str, n_tokens: int | str, config: RecognizerConfig) -> tuple[Value, ...]:
    """Keys and values of each decoder block, in turn."""
    text = config.text_config
    shape = (owners, text.num_key_value_heads, n_tokens, text.head_dim)
    return tuple(
        Value(f"{stem}.{block}.{part}", shape) for block in range(text.num_hidden_layers) for part in ("key", "value")
    )
