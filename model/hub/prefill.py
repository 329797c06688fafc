"""The prefill of a vision-language model of the hub, as its own `generate()` does it.

Shape suffixes: B images, M open branches of all images together, S prefix slots (padding included), V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from model.fetching.architecture import find_obstacle

# What a step of generate() is given beside token and cache. The rest is for the prefill alone.
_OF_STEPS = ("attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids", "cross_attention_mask")


@dataclass(frozen=True, slots=True)
class HubPrefix:
    """What one prefill leaves for branches.

    logits_BV: of a label's first token, float32.
    cache: keys, values and states, one row an image.
    n_slots: tokens of the longest prefix. Shorter ones are padded on the left.
    of_step: what `generate()` would give the model for the first token behind the prefix, one row an image.
    """

    logits_BV: Tensor
    cache: Cache
    n_slots: int
    of_step: Mapping[str, Tensor]

    def step_inputs(self, image_M: Tensor, n_tokens: int) -> dict[str, Tensor]:
        """What the model needs beside token and cache for a step of branches.

        Args:
            image_M: the image of each branch.
            n_tokens: tokens that each branch has had.
        """
        inputs = {name: value[image_M] for name, value in self.of_step.items() if name != "position_ids"}
        inputs["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, n_tokens), value=1)
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = inputs[name][:, -1:]
        # Where a label begins depends on its image: positions may be those of a grid. From there they count up by one.
        inputs["position_ids"] = self.of_step["position_ids"][..., image_M, :] + n_tokens
        return inputs


def cache_argument(model: PreTrainedModel) -> str:
    """The name of the argument that takes the cache: transformers 5.24 renames it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def check_model(model: PreTrainedModel) -> None:
    """Raises NotImplementedError where the prefill is not one causal pass through the whole model."""
    obstacle = find_obstacle(type(model), is_encoder_decoder=model.config.is_encoder_decoder)
    if obstacle:
        raise NotImplementedError(obstacle)


def prefill(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> HubPrefix:
    """Runs images and prompts through the model once.

    Args:
        inputs: what the model's processor makes of one image and prompt a row, padded on the left, on the model's
            device. `input_ids` and `attention_mask` are among them.

    Raises NotImplementedError where the model is of a kind whose branches cannot share a prefix.
    """
    check_model(model)
    name, kwargs = cache_argument(model), dict[str, Any](inputs)
    input_ids = kwargs.pop("input_ids")
    n_images, n_slots = input_ids.shape
    kwargs[name] = DynamicCache(config=model.config.get_text_config(decoder=True))
    kwargs["position_ids"] = model._prepare_position_ids_for_generation(input_ids, kwargs)
    kwargs["use_cache"] = True
    prepared = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, logits_to_keep=1, **kwargs)
    output = model(**prepared)
    cache = getattr(output, name)
    n_stored = cache.get_seq_length()
    if n_stored != n_slots:
        raise NotImplementedError(
            f"{type(model).__name__} stores {n_stored} slots of a prompt of {n_slots} tokens; expected one a token"
        )
    following: dict[str, Any] = model._update_model_kwargs_for_generation(output, kwargs, is_encoder_decoder=False)
    of_step = {name: following[name] for name in _OF_STEPS if following.get(name) is not None}
    positions = of_step["position_ids"][..., -1:]
    of_step["position_ids"] = positions.expand(*positions.shape[:-2], n_images, 1)
    return HubPrefix(output.logits[:, -1].float(), cache, n_slots, of_step)
