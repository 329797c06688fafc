"""The recognizer's configuration: which encoder, which decoder, which prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, PretrainedConfig

from model.fetching.architecture import NXTP_MODEL_TYPE

DEFAULT_MAX_LABEL_TOKENS = 16


class RecognizerConfig(PretrainedConfig):
    """Everything about a recognizer that is not a weight.

    Args:
        vision_config: the CLIP vision encoder (`CLIPVisionConfig` or its dict).
        text_config: the truncated Llama decoder (`LlamaConfig` or its dict).
        prompt_ids: token ids that follow the image tokens, the answer token ("are") last. With Llama-2's tokenizer
            `[<|image|>, <s>, The, objects, in, the, image, are]`.
        delimiter_id: id of the token that closes a label (",").
        max_label_tokens: how many tokens a label may have before it counts as unfinished, the delimiter not counted.
    """

    model_type = NXTP_MODEL_TYPE
    sub_configs = {"vision_config": CLIPVisionConfig, "text_config": LlamaConfig}

    def __init__(
        self,
        vision_config: CLIPVisionConfig | dict[str, Any] | None = None,
        text_config: LlamaConfig | dict[str, Any] | None = None,
        prompt_ids: Sequence[int] = (),
        delimiter_id: int = 0,
        max_label_tokens: int = DEFAULT_MAX_LABEL_TOKENS,
        **kwargs: Any,
    ) -> None:
        self.vision_config = _as_config(vision_config, CLIPVisionConfig)
        self.text_config = _as_config(text_config, LlamaConfig)
        self.prompt_ids = [int(token_id) for token_id in prompt_ids]
        self.delimiter_id = delimiter_id
        self.max_label_tokens = max_label_tokens
        kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)

    @property
    def n_image_tokens(self) -> int:
        """Image tokens the decoder sees: one a patch, the class token left out."""
        return int((self.vision_config.image_size // self.vision_config.patch_size) ** 2)

    @property
    def n_prefix_tokens(self) -> int:
        """Tokens every label is conditioned on: image and prompt."""
        return self.n_image_tokens + len(self.prompt_ids)

    def n_kept_tokens(self, image_tokens: int, name: str = "image_tokens") -> int:
        """Image tokens that the decoder reads where `image_tokens` are asked for: as many, or all for 0.

        Raises ValueError, which calls the number by its `name`, for more than the model has.
        """
        if not 0 <= image_tokens <= self.n_image_tokens:
            raise ValueError(
                f"{name} is {image_tokens}; this model has {self.n_image_tokens} image tokens, "
                f"expected 0 (all) to {self.n_image_tokens}"
            )
        return image_tokens or self.n_image_tokens

    def check(self) -> None:
        """Raises ValueError where the parts do not fit together."""
        vocab_size = self.text_config.vocab_size
        if not self.prompt_ids:
            raise ValueError("prompt_ids is empty; expected the ids of the prompt, the answer token last")
        outside = [i for i in [*self.prompt_ids, self.delimiter_id] if not 0 <= i < vocab_size]
        if outside:
            raise ValueError(f"token ids {outside} lie outside the decoder's vocabulary of {vocab_size}")
        if self.max_label_tokens < 1:
            raise ValueError(f"max_label_tokens is {self.max_label_tokens}; expected 1 or more")


def _as_config(value: Any, config_class: type[PretrainedConfig]) -> Any:
    if value is None:
        return config_class()
    return config_class(**value) if isinstance(value, dict) else value


# Lets AutoConfig and AutoTokenizer recognise a recognizer's folder.
AutoConfig.register(RecognizerConfig.model_type, RecognizerConfig)
