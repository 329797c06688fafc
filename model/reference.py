"""Names and shapes of the public NXTP checkpoint, and recognizers built from it.

The public code names its modules after OpenAI's CLIP (`vision_encoder.*`) and Meta's Llama (`language_decoder.*`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig

from model.configuration import DEFAULT_MAX_LABEL_TOKENS, RecognizerConfig
from model.modeling import RecognizerModel
from model.preprocessing import ImagePreprocessor
from model.recognizer import Recognizer, Tokenizer

VISION_PREFIX = "vision_encoder."
DECODER_PREFIX = "language_decoder."
# CLIP's temperature: part of the checkpoint, no part of the recognizer.
UNUSED_NAMES = frozenset({"vision_encoder.logit_scale"})

_VISION_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre": "pre_layrnorm",
    "ln_post": "post_layernorm",
}
_VISION_BLOCK_NAMES = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_DECODER_NAMES = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
_DECODER_BLOCK_NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


class CheckpointError(ValueError):
    """A checkpoint that does not hold what a recognizer needs."""


def recognizer_from_reference(
    state_dict: Mapping[str, Tensor],
    *,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    delimiter_id: int,
    n_vision_heads: int,
    n_decoder_heads: int,
    rms_norm_eps: float,
    image_size: int,
    max_label_tokens: int = DEFAULT_MAX_LABEL_TOKENS,
) -> Recognizer:
    """A recognizer with the weights of a flat state dict that has the public checkpoint's names.

    Sizes are read off the weights; what weights do not tell is given: numbers of heads, RMSNorm's eps, the image size
    in pixels, the prompt's token ids (from <|image|> to the answer token) and the delimiter's. The model has the
    weights' dtype. Raises CheckpointError naming every weight that is missing, left over or of the wrong shape.
    """
    weights = {name: tensor for name, tensor in state_dict.items() if name not in UNUSED_NAMES}
    config = RecognizerConfig(
        vision_config=_vision_config(weights, n_vision_heads, image_size),
        text_config=_text_config(weights, n_decoder_heads, rms_norm_eps),
        prompt_ids=prompt_ids,
        delimiter_id=delimiter_id,
        max_label_tokens=max_label_tokens,
    )
    module = model_with_weights(config, rename_weights(weights, n_decoder_heads))
    return Recognizer(module, ImagePreprocessor(image_size=image_size), tokenizer)


def rename_weights(weights: Mapping[str, Tensor], n_decoder_heads: int) -> dict[str, Tensor]:
    """The same weights under `RecognizerModel`'s names; an unknown name is a CheckpointError."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith(VISION_PREFIX):
            renamed.update(_rename_vision(name.removeprefix(VISION_PREFIX), tensor))
        elif name.startswith(DECODER_PREFIX):
            renamed.update(_rename_decoder(name.removeprefix(DECODER_PREFIX), tensor, n_decoder_heads))
        else:
            raise CheckpointError(f"unknown weight {name!r}; expected {VISION_PREFIX}* or {DECODER_PREFIX}*")
    return renamed


def model_with_weights(config: RecognizerConfig, weights: Mapping[str, Tensor]) -> RecognizerModel:
    """A model holding exactly these weights, in their dtype."""
    module = RecognizerModel(config)
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    _check_names("missing", expected.keys() - weights.keys())
    _check_names("left over", weights.keys() - expected.keys())
    wrong = [
        f"{name} is {list(weights[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if weights[name].shape != shape
    ]
    if wrong:
        raise CheckpointError("weights of the wrong shape: " + "; ".join(sorted(wrong)[:5]))
    dtypes = {tensor.dtype for tensor in weights.values()}
    module.to(dtypes.pop() if len(dtypes) == 1 else torch.float32)
    module.load_state_dict(weights)
    return module


def interleaved_to_half_split(weight: Tensor, n_heads: int) -> Tensor:
    """Reorders rows of wq or wk: Meta has rotary pairs side by side, transformers half a head apart."""
    rows, width = weight.shape
    head_size = rows // n_heads
    return weight.view(n_heads, head_size // 2, 2, width).transpose(1, 2).reshape(rows, width)


def _check_names(what: str, names: Iterable[str]) -> None:
    listed = sorted(names)
    if listed:
        shown = ", ".join(listed[:8])
        more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
        raise CheckpointError(f"{len(listed)} weights {what}: {shown}{more}")


def _rename_vision(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name == "proj.weight":
        return {"projector.weight": tensor}
    if match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name):
        block, part = f"vision_encoder.encoder.layers.{match[1]}.", match[2]
        if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
            kind = part.rsplit("_", 1)[1]
            chunks = zip("qkv", tensor.chunk(3), strict=True)
            return {f"{block}self_attn.{which}_proj.{kind}": chunk for which, chunk in chunks}
        return {block + _rename(part, _VISION_BLOCK_NAMES, VISION_PREFIX + name): tensor}
    return {"vision_encoder." + _rename(name, _VISION_NAMES, VISION_PREFIX + name): tensor}


def _rename_decoder(name: str, tensor: Tensor, n_heads: int) -> dict[str, Tensor]:
    if match := re.fullmatch(r"layers\.(\d+)\.(.+)", name):
        part = match[2]
        if part == "attention.wq.weight":
            tensor = interleaved_to_half_split(tensor, n_heads)
        elif part == "attention.wk.weight":
            # Keys may have fewer heads than queries, all of one size.
            head_size = tensor.shape[1] // n_heads
            tensor = interleaved_to_half_split(tensor, tensor.shape[0] // head_size)
        renamed = _rename(part, _DECODER_BLOCK_NAMES, DECODER_PREFIX + name)
        return {f"decoder.model.layers.{match[1]}.{renamed}": tensor}
    return {"decoder." + _rename(name, _DECODER_NAMES, DECODER_PREFIX + name): tensor}


def _rename(name: str, names: Mapping[str, str], full_name: str) -> str:
    if name in names:
        return names[name]
    stem, _, kind = name.rpartition(".")
    if stem in names and kind in ("weight", "bias"):
        return f"{names[stem]}.{kind}"
    raise CheckpointError(f"unknown weight {full_name!r}")


def _count_blocks(weights: Mapping[str, Tensor], pattern: str) -> int:
    blocks = {int(match[1]) for name in weights if (match := re.match(pattern, name))}
    if blocks != set(range(len(blocks))):
        raise CheckpointError(
            f"blocks {pattern} are numbered {sorted(blocks)}; expected 0 to {max(blocks)} without gaps"
        )
    return len(blocks)


def _shape(weights: Mapping[str, Tensor], name: str) -> torch.Size:
    if name not in weights:
        raise CheckpointError(f"weight {name!r} is missing")
    return weights[name].shape


def _vision_config(weights: Mapping[str, Tensor], n_heads: int, image_size: int) -> CLIPVisionConfig:
    width, _, patch_size, _ = _shape(weights, "vision_encoder.conv1.weight")
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=_shape(weights, "vision_encoder.transformer.resblocks.0.mlp.c_fc.weight")[0],
        num_hidden_layers=_count_blocks(weights, r"vision_encoder\.transformer\.resblocks\.(\d+)\."),
        num_attention_heads=n_heads,
        image_size=image_size,
        patch_size=patch_size,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )


def _text_config(weights: Mapping[str, Tensor], n_heads: int, rms_norm_eps: float) -> LlamaConfig:
    vocab_size, width = _shape(weights, "language_decoder.tok_embeddings.weight")
    n_key_rows = _shape(weights, "language_decoder.layers.0.attention.wk.weight")[0]
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=_shape(weights, "language_decoder.layers.0.feed_forward.w1.weight")[0],
        num_hidden_layers=_count_blocks(weights, r"language_decoder\.layers\.(\d+)\."),
        num_attention_heads=n_heads,
        num_key_value_heads=n_key_rows * n_heads // width,
        rms_norm_eps=rms_norm_eps,
    )
