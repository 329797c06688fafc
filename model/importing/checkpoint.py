"""Imports the public NXTP checkpoint: its trained weights, the rest of CLIP's, and Llama's tokenizer.

The checkpoint holds only what was trained, under the names of `model.importing.reference`. What was frozen (CLIP's
first layers and early blocks) comes from OpenAI's CLIP, the vocabulary from Llama-2's `tokenizer.model`.
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPVisionConfig

from model.images.preprocessing import ImagePreprocessor
from model.importing.llama_vocabulary import LlamaVocabulary
from model.importing.reference import (
    VISION_PREFIX,
    CheckpointError,
    model_with_weights,
    reference_name,
    rename_weights,
    text_config_of,
    vision_config_of,
)
from model.nxtp.configuration import RecognizerConfig
from model.nxtp.recognizer import Recognizer

DEFAULT_PROMPT = "The objects in the image are"
DEFAULT_DELIMITER = ","
# Llama-2's and of the public checkpoint.
DEFAULT_RMS_NORM_EPS = 1e-5

_TRAINED_PREFIX = "module."
_VISION_HEAD_SIZE = 64
_DECODER_HEAD_SIZE = 128
_EMBEDDINGS = "decoder.model.embed_tokens.weight"
# The text tower, the projections into the space both towers share, and constants.
_UNUSED_OPENAI = re.compile(
    r"visual\.proj|transformer\.resblocks\..+|token_embedding\.weight|positional_embedding|ln_final\.(weight|bias)"
    r"|text_projection|logit_scale|input_resolution|context_length|vocab_size"
)
_UNUSED_TRANSFORMERS = re.compile(
    r"text_model\..+|(visual|text)_projection\.weight|logit_scale|(vision_model\.)?embeddings\.position_ids"
)


def import_nxtp(
    checkpoint: Path,
    clip: Path,
    tokenizer: Path,
    *,
    n_decoder_heads: int | None = None,
    rms_norm_eps: float = DEFAULT_RMS_NORM_EPS,
    prompt: str = DEFAULT_PROMPT,
    delimiter: str = DEFAULT_DELIMITER,
) -> Recognizer:
    """A recognizer with the weights of the public checkpoint, in the checkpoint's dtype.

    Args:
        checkpoint: the public `.pth`. Its weights take precedence over CLIP's.
        clip: OpenAI's CLIP, as its `.pt` (TorchScript archive or state dict) or as a transformers folder.
        tokenizer: Llama-2's `tokenizer.model`.
        n_decoder_heads: default the decoder's width / 128, Llama's rule.
        rms_norm_eps: `norm_eps` of Llama's params.json.
        prompt: what stands between image and label.
        delimiter: the piece of the vocabulary that closes a label.

    Raises CheckpointError naming what is missing, left over or does not fit; FileNotFoundError; ImportError where
    sentencepiece is not installed.
    """
    vocabulary = LlamaVocabulary(tokenizer)
    trained = _read_checkpoint(checkpoint, vocabulary)
    if n_decoder_heads is None:
        width = _shape(trained, _EMBEDDINGS)[1]
        n_decoder_heads = _divide(width, _DECODER_HEAD_SIZE, "decoder; give the number of its heads")
    weights = _merge(_read_clip(clip), rename_weights(trained, n_decoder_heads), checkpoint)
    module = model_with_weights(
        RecognizerConfig(
            vision_config=_vision_config(weights),
            text_config=text_config_of(weights, n_decoder_heads, rms_norm_eps),
            prompt_ids=vocabulary.prompt_ids(prompt),
            delimiter_id=vocabulary.piece_id(delimiter),
        ),
        weights,
    )
    image_size = module.config.vision_config.image_size
    return Recognizer(module, ImagePreprocessor(image_size=image_size), vocabulary.make_tokenizer(prompt))


def _read_checkpoint(path: Path, vocabulary: LlamaVocabulary) -> dict[str, Tensor]:
    """The trained weights under the reference's names, one embedding a token of the vocabulary."""
    content = _load_dict(path, "the public checkpoint")
    weights = content.get("model")
    if not isinstance(weights, dict):
        keys = ", ".join(sorted(map(str, content))[:6])
        raise CheckpointError(f"{path} holds {keys}; expected 'model', a dict of weights, among them")
    trained = {name.removeprefix(_TRAINED_PREFIX): tensor for name, tensor in _tensors(weights, path).items()}
    n_rows = _shape(trained, _EMBEDDINGS)[0]
    if n_rows != len(vocabulary):
        raise CheckpointError(
            f"{path} has {n_rows} token embeddings, {vocabulary.path} has {len(vocabulary)} tokens, <|image|> and "
            "<|empty|> included; give the tokenizer.model of the Llama that was trained"
        )
    return trained


def _merge(clip: Mapping[str, Tensor], trained: Mapping[str, Tensor], checkpoint: Path) -> dict[str, Tensor]:
    """CLIP's weights replaced by the trained ones where there are any, all in the trained ones' dtype."""
    for name in sorted(clip.keys() & trained.keys()):
        if clip[name].shape != trained[name].shape:
            raise CheckpointError(
                f"{reference_name(name)} is {list(trained[name].shape)} in {checkpoint}, {list(clip[name].shape)} in "
                "CLIP; give the CLIP that was trained (ViT-L/14 for the published checkpoint)"
            )
    dtype = reduce(torch.promote_types, {tensor.dtype for tensor in trained.values()})
    return {name: tensor.to(dtype) for name, tensor in {**clip, **trained}.items()}


def _vision_config(weights: Mapping[str, Tensor]) -> CLIPVisionConfig:
    """The encoder's configuration: it has one position a patch and one for the class token."""
    n_positions, width = _shape(weights, "vision_encoder.embeddings.position_embedding.weight")
    patch_size = _shape(weights, "vision_encoder.embeddings.patch_embedding.weight", 4)[-1]
    side = math.isqrt(n_positions - 1)
    if side**2 != n_positions - 1:
        raise CheckpointError(f"CLIP has {n_positions} positions; expected one more than a square number")
    return vision_config_of(weights, _divide(width, _VISION_HEAD_SIZE, "vision encoder"), side * patch_size)


def _divide(width: int, head_size: int, what: str) -> int:
    if width % head_size:
        raise CheckpointError(f"a width of {width} is no multiple of {head_size}, the size of a head of the {what}")
    return width // head_size


def _shape(weights: Mapping[str, Tensor], name: str, n_dimensions: int = 2) -> tuple[int, ...]:
    """Shape of a weight given by the model's name, which may stand under the reference's."""
    tensor = weights.get(name, weights.get(reference_name(name)))
    if tensor is None or tensor.ndim != n_dimensions:
        found = "is missing" if tensor is None else f"is {list(tensor.shape)}, expected {n_dimensions} dimensions"
        raise CheckpointError(f"weight {reference_name(name)} ({name}) {found}")
    return tuple(tensor.shape)


def _read_clip(path: Path) -> dict[str, Tensor]:
    """CLIP's vision encoder under the model's names."""
    if path.is_dir():
        weights = _read_clip_folder(path)
        return {f"vision_encoder.{name.removeprefix('vision_model.')}": tensor for name, tensor in weights.items()}
    state_dict = _read_torchscript(path) if _is_torchscript(path) else _load_dict(path, "OpenAI's CLIP")
    used = {name: tensor for name, tensor in state_dict.items() if not _UNUSED_OPENAI.fullmatch(str(name))}
    left_over = [str(name) for name in used if not str(name).startswith("visual.")]
    if left_over:
        raise CheckpointError(f"{path} holds {left_over[0]!r}, which is no part of OpenAI's CLIP; expected visual.*")
    vision = {VISION_PREFIX + name.removeprefix("visual."): tensor for name, tensor in _tensors(used, path).items()}
    try:
        # No name below the vision prefix depends on the decoder's heads.
        return rename_weights(vision, n_decoder_heads=1)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is not a CLIP with a vision transformer: {error}") from error


def _read_clip_folder(folder: Path) -> dict[str, Tensor]:
    """Weights of a folder that transformers wrote, without the unused ones; safetensors where there are any."""
    files = sorted(folder.glob("model*.safetensors"))
    weights: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            weights.update({name: opened.get_tensor(name) for name in opened.keys() if _is_used(name)})  # noqa: SIM118
    pickled = [] if files else sorted(folder.glob("pytorch_model*.bin"))
    for file in pickled:
        content = _load_dict(file, "CLIP's weights")
        weights.update(_tensors({name: tensor for name, tensor in content.items() if _is_used(name)}, file))
    if not files and not pickled:
        raise CheckpointError(f"{folder} holds neither model.safetensors nor pytorch_model.bin; expected CLIP's folder")
    return weights


def _is_used(name: str) -> bool:
    return _UNUSED_TRANSFORMERS.fullmatch(name) is None


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, which `torch.load(weights_only=True)` refuses."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path) -> dict[str, Any]:
    """The state dict of a TorchScript archive, the form in which OpenAI distributes CLIP.

    torch.jit.load is deprecated but still there in torch 2.13. It rebuilds a TorchScript module and unpickles no Python
    objects; none of the module's methods is called here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return dict(torch.jit.load(str(path), map_location="cpu").state_dict())  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} is no readable TorchScript archive: {_first_sentence(error)}") from error


def _load_dict(path: Path, what: str) -> dict[Any, Any]:
    """What a pickle of a dict of tensors and plain values holds; other objects are refused unread."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; expected {what}")
    try:
        # Files older than torch's zip format cannot be mapped.
        content = torch.load(path, weights_only=True, mmap=zipfile.is_zipfile(path), map_location="cpu")
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"it holds {refused[1]}, and loading such objects can run code"
            if refused
            else "it is damaged or another kind of file"
        )
        raise CheckpointError(f"{path} is not loaded: {reason}; expected {what}, weights alone") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read: {_first_sentence(error)}; expected {what}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected {what}, a dict")
    return content


def _first_sentence(error: BaseException) -> str:
    return re.split(r"\n|\. ", str(error).strip(), maxsplit=1)[0] or type(error).__name__


def _tensors(weights: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            found = f"a {tensor.dtype} tensor" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise CheckpointError(f"{name} in {path} is {found}; expected a tensor of floats")
    return {str(name): tensor for name, tensor in weights.items()}
