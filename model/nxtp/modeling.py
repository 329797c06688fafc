"""The recognizer as a transformers model: CLIP encoder -> linear projector -> truncated Llama decoder.

Shape suffixes: B images, C channels, N image tokens (patches, or what they are merged into), S prefix tokens (image and
prompt), P prompt tokens, L tokens of a whole sequence, W encoder width, D decoder width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, GenerationMixin, LlamaForCausalLM, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from model.nxtp.configuration import RecognizerConfig
from model.nxtp.decoder import PrefixCache, prefill, prefix_mask
from model.nxtp.token_merging import MergedTokens, merge_tokens


@dataclass(frozen=True, slots=True)
class Prefix:
    """What one prefill leaves for sampling: image tokens [B, N, D], answer state [B, D], keys and values.

    The image tokens are those of the encoder, also where the decoder read fewer, merged ones.
    """

    image_embeds_BND: Tensor
    answer_BD: Tensor
    cache: PrefixCache


class RecognizerModel(PreTrainedModel, GenerationMixin):
    """NXTP: image tokens as a fully visible prefix of a causal decoder that writes labels."""

    config_class = RecognizerConfig
    config: RecognizerConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _no_split_modules = ["CLIPEncoderLayer", "LlamaDecoderLayer"]

    def __init__(self, config: RecognizerConfig) -> None:
        config.check()
        super().__init__(config)
        self.vision_encoder = CLIPVisionModel(config.vision_config)
        self.projector = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size, bias=False)
        self.decoder = LlamaForCausalLM(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder.lm_head

    def encode_images(self, pixel_values_BCHW: Tensor) -> Tensor:
        """Image tokens in the decoder's space, [B, N, D].

        CLIP's post-layernorm and the projection see all tokens, the class token is dropped after them; transformers'
        encoder applies that norm to the class token only, so it is applied here.
        """
        expected = (3, self.config.vision_config.image_size, self.config.vision_config.image_size)
        if pixel_values_BCHW.ndim != 4 or tuple(pixel_values_BCHW.shape[1:]) != expected:
            got = list(pixel_values_BCHW.shape)
            raise ValueError(f"pixel_values has shape {got}; this model takes [batch, {', '.join(map(str, expected))}]")
        hidden_BXW = self.vision_encoder(pixel_values=pixel_values_BCHW).last_hidden_state
        return self.projector(self.vision_encoder.post_layernorm(hidden_BXW)[:, 1:])

    def prefill(self, pixel_values_BCHW: Tensor) -> Prefix:
        """Encodes the images and runs image and prompt through the decoder, once."""
        return self.prefill_image_tokens(self.encode_images(pixel_values_BCHW))

    def prefill_image_tokens(self, image_embeds_BND: Tensor, image_tokens: int = 0) -> Prefix:
        """Runs what `encode_images` returned and the prompt through the decoder, once.

        Args:
            image_tokens: how many tokens the image tokens are merged into; 0 keeps all as they are.

        Raises ValueError for more than the model has.
        """
        merged = self.merge_image_tokens(image_embeds_BND, image_tokens)
        read_BND = merged.embeds_BND if merged else image_embeds_BND
        prompt_ids = torch.tensor(self.config.prompt_ids, device=read_BND.device)
        prompt_BPD = self.get_input_embeddings()(prompt_ids).expand(read_BND.shape[0], -1, -1)
        embeds_BSD = torch.cat((read_BND, prompt_BPD.to(read_BND.dtype)), dim=1)
        places = merged.places(len(prompt_ids)) if merged else None
        answer_BD, cache = prefill(self.decoder, embeds_BSD, read_BND.shape[1], places)
        return Prefix(image_embeds_BND, answer_BD, cache)

    def merge_image_tokens(self, image_embeds_BND: Tensor, image_tokens: int) -> MergedTokens | None:
        """The image tokens merged into this many; None where the decoder reads all of them, for 0 or as many as N."""
        n_kept = self.config.n_kept_tokens(image_tokens)
        return merge_tokens(image_embeds_BND, n_kept) if n_kept < image_embeds_BND.shape[1] else None

    def token_logits(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary in float32, [..., D] -> [..., V]."""
        return self.decoder.lm_head(hidden).float()

    def forward(
        self,
        input_ids: Tensor,
        image_embeds: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """The plain language-model pass that `generate()` drives.

        `input_ids` [B, L] holds one placeholder an image token first (`placeholder_ids`); on the first pass the
        placeholders' embeddings are replaced by `image_embeds` [B, N, D].
        """
        embeds_BLD = self.get_input_embeddings()(input_ids)
        mask_11LL = None
        if image_embeds is not None:
            n_image, n_tokens = image_embeds.shape[1], input_ids.shape[1]
            embeds_BLD = torch.cat((image_embeds, embeds_BLD[:, n_image:]), dim=1)
            hidden_from = prefix_mask(n_image, n_tokens, embeds_BLD.device).logical_not()
            mask_11LL = torch.zeros(1, 1, n_tokens, n_tokens, dtype=embeds_BLD.dtype, device=embeds_BLD.device)
            mask_11LL = mask_11LL.masked_fill(hidden_from, torch.finfo(embeds_BLD.dtype).min)
            mask_11LL = mask_11LL.expand(len(input_ids), -1, -1, -1)
        return self.decoder(
            inputs_embeds=embeds_BLD, attention_mask=mask_11LL, past_key_values=past_key_values, **kwargs
        )

    def placeholder_ids(self, n_images: int) -> Tensor:
        """Token ids of the prefix for `forward`, [B, S]: the prompt behind one placeholder an image token."""
        ids = [self.config.prompt_ids[0]] * self.config.n_image_tokens + self.config.prompt_ids
        return torch.tensor(ids, device=self.device).expand(n_images, -1)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, past_key_values: Any = None, image_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        is_first = past_key_values is None or past_key_values.get_seq_length() == 0
        return {
            "input_ids": input_ids if is_first else input_ids[:, -1:],
            "image_embeds": image_embeds if is_first else None,
            "past_key_values": past_key_values,
            "use_cache": kwargs.get("use_cache", True),
            "logits_to_keep": 1,
        }
