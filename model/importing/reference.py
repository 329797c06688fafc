"""Names and shapes of the public NXTP checkpoint, and recognizers built from it.

The public code names its modules after OpenAI's CLIP (`vision_encoder.*`) and Meta's Llama (`language_decoder.*`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig

from model.images.preprocessing import ImagePreprocessor
from model.nxtp.configuration import DEFAULT_MAX_LABEL_TOKENS, RecognizerConfig
from model.nxtp.modeling import RecognizerModel
from model.nxtp.name_tokens import Tokenizer
from model.nxtp.recognizer import Recognizer

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
    weights = rename_weights(state_dict, n_decoder_heads)
    config = RecognizerConfig(
        vision_config=vision_config_of(weights, n_vision_heads, image_size),
        text_config=text_config_of(weights, n_decoder_heads, rms_norm_eps),
        prompt_ids=prompt_ids,
        delimiter_id=delimiter_id,
        max_label_tokens=max_label_tokens,
    )
    module = model_with_weights(config, weights)
    return Recognizer(module, ImagePreprocessor(image_size=image_size), tokenizer)


def rename_weights(weights: Mapping[str, Tensor], n_decoder_heads: int) -> dict[str, Tensor]:
    """The weights under `RecognizerModel`'s names, without CLIP's temperature; an unknown name is a CheckpointError."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name in UNUSED_NAMES:
            continue
        if name.startswith(VISION_PREFIX):
            renamed.update(_rename_vision(name.removeprefix(VISION_PREFIX), tensor))
        elif name.startswith(DECODER_PREFIX):
            renamed.update(_rename_decoder(name.removeprefix(DECODER_PREFIX), tensor, n_decoder_heads))
        else:
            raise CheckpointError(f"unknown weight {name!r}; expected {VISION_PREFIX}* or {DECODER_PREFIX}*")
    return renamed


def reference_name(name: str) -> str:
    """The public checkpoint's name of the weight that `RecognizerModel` calls `name`."""
    if match := re.fullmatch(r"vision_encoder\.encoder\.layers\.(\d+)\.(.+)", name):
        part = re.sub(r"^self_attn\.[qkv]_proj\.", "attn.in_proj_", match[2])
        return f"{VISION_PREFIX}transformer.resblocks.{match[1]}.{_rename_back(part, _VISION_BLOCK_NAMES)}"
    if match := re.fullmatch(r"decoder\.model\.layers\.(\d+)\.(.+)", name):
        return f"{DECODER_PREFIX}layers.{match[1]}.{_rename_back(match[2], _DECODER_BLOCK_NAMES)}"
    if name.startswith("decoder."):
        return DECODER_PREFIX + _rename_back(name.removeprefix("decoder."), _DECODER_NAMES)
    if name.startswith("projector."):
        return f"{VISION_PREFIX}proj.{name.removeprefix('projector.')}"
    return VISION_PREFIX + _rename_back(name.removeprefix("vision_encoder."), _VISION_NAMES)


def model_with_weights(config: RecognizerConfig, weights: Mapping[str, Tensor]) -> RecognizerModel:
    """A model holding exactly these weights, in their dtype (float32 where they differ)."""
    dtypes = {tensor.dtype for tensor in weights.values()}
    # Made in its dtype rather than cast to it: a cast would round the rotary frequencies, which stay float32.
    with _default_dtype(dtypes.pop() if len(dtypes) == 1 else torch.float32):
        module = RecognizerModel(config)
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    _check_names("missing", expected.keys() - weights.keys())
    _check_names("left over", weights.keys() - expected.keys())
    wrong = [
        f"{_both_names(name)} is {list(weights[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if weights[name].shape != shape
    ]
    if wrong:
        raise CheckpointError("weights of the wrong shape: " + "; ".join(sorted(wrong)[:5]))
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
        shown = ", ".join(map(_both_names, listed[:8]))
        more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
        raise CheckpointError(f"{len(listed)} weights {what}: {shown}{more}")


def _both_names(name: str) -> str:
    return f"{reference_name(name)} ({name})"


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


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
        if part in ("attention.wq.weight", "attention.wk.weight"):
            width = tensor.shape[1]
            if n_heads < 1 or width % (2 * n_heads):
                raise CheckpointError(f"{n_heads} heads do not divide the decoder's width of {width} into pairs")
            # Keys may have fewer heads than queries, all of one size.
            tensor = interleaved_to_half_split(tensor, tensor.shape[0] // (width // n_heads))
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


def _rename_back(name: str, names: Mapping[str, str]) -> str:
    for theirs, ours in names.items():
        if name == ours or name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    return name


def vision_config_of(weights: Mapping[str, Tensor], n_heads: int, image_size: int) -> CLIPVisionConfig:
    """The encoder's configuration, its sizes read off weights under `RecognizerModel`'s names."""
    width, _, patch_size, _ = _shape(weights, "vision_encoder.embeddings.patch_embedding.weight")
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=_shape(weights, "vision_encoder.encoder.layers.0.mlp.fc1.weight")[0],
        num_hidden_layers=_count_blocks(weights, "vision_encoder.encoder.layers"),
        num_attention_heads=n_heads,
        image_size=image_size,
        patch_size=patch_size,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )


def text_config_of(weights: Mapping[str, Tensor], n_heads: int, rms_norm_eps: float) -> LlamaConfig:
    """The decoder's configuration, its sizes read off weights under `RecognizerModel`'s names."""
    vocab_size, width = _shape(weights, "decoder.model.embed_tokens.weight")
    n_key_rows = _shape(weights, "decoder.model.layers.0.self_attn.k_proj.weight")[0]
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=_shape(weights, "decoder.model.layers.0.mlp.gate_proj.weight")[0],
        num_hidden_layers=_count_blocks(weights, "decoder.model.layers"),
        num_attention_heads=n_heads,
        num_key_value_heads=n_key_rows * n_heads // width,
        rms_norm_eps=rms_norm_eps,
    )


def _count_blocks(weights: Mapping[str, Tensor], stem: str) -> int:
    pattern = re.compile(re.escape(stem) + r"\.(\d+)\.")
    blocks = {int(match[1]) for name in weights if (match := pattern.match(name))}
    if blocks != set(range(len(blocks))):
        raise CheckpointError(f"the blocks of {stem} are {sorted(blocks)}; expected 0 to {max(blocks)} without gaps")
    return len(blocks)


def _shape(weights: Mapping[str, Tensor], name: str) -> torch.Size:
    if name not in weights:
        raise CheckpointError(f"weight {_both_names(name)} is missing")
    return weights[name].shape
