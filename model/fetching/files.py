"""The files that a model consists of."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from model.fetching.architecture import NXTP_MODEL_TYPE, check_architecture
from model.fetching.refusal import TABLE_HINT, IncompleteModelError, ModelUnusableError

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
# transformers 5 keeps here what was in the preprocessor's file before.
PROCESSOR_FILE = "processor_config.json"
# All that is read of a model: settings, weights, chat template, tokenizer. No pickles, no code; nothing of subfolders,
# which hold the same model in other formats.
MODEL_PATTERNS = ("*.json", "model*.safetensors", "*.jinja", "*.txt", "*.model")
SUBFOLDERS = "*/*"
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_INDEX_FILE = "model.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs"
_N_NAMED = 5


def is_model_file(name: str) -> bool:
    """Whether a file of this name, at the top of a model's folder, is read."""
    return any(fnmatch(name, pattern) for pattern in MODEL_PATTERNS)


def check_files(model: str, names: Collection[str]) -> None:
    """Raises ModelUnusableError unless a model has a configuration and weights in safetensors.

    Args:
        model: its name, for messages.
        names: the files at the top of its folder.
    """
    if CONFIG_FILE not in names:
        raise IncompleteModelError(
            f"there is no model at {model}; expected a folder with {CONFIG_FILE} and *.safetensors, "
            f"found {_listed(names)}; {TABLE_HINT}"
        )
    if not any(_is_weights(name) for name in names):
        pickled = [name for name in names if name.endswith(_PICKLE_SUFFIXES)]
        if pickled:
            raise ModelUnusableError(
                f"{model} has its weights only as pickles ({_listed(pickled)}), and reading those can run code; "
                "expected model.safetensors: take a revision or a model that has it, or write it from weights that "
                f"you trust with save_pretrained of transformers; {TABLE_HINT}"
            )
        raise IncompleteModelError(
            f"{model} holds no weights; expected model.safetensors, found {_listed(names)}; {TABLE_HINT}"
        )


def check_config(model: str, content: bytes, names: Collection[str]) -> None:
    """Raises ModelUnusableError where a model is of a kind that cannot label, or its processor is missing.

    Args:
        content: of its config.json.
        names: the files at the top of its folder.
    """
    config = _read_json(model, CONFIG_FILE, content)
    check_architecture(model, config)
    accepted = (
        (PREPROCESSOR_FILE,) if config.get("model_type") == NXTP_MODEL_TYPE else (PROCESSOR_FILE, PREPROCESSOR_FILE)
    )
    if not any(name in names for name in accepted):
        raise IncompleteModelError(
            f"{model} has no {' and no '.join(accepted)}, so that nothing says how it wants its images; save its "
            "processor into the same folder"
        )


def check_folder(folder: Path, model: str | None = None) -> None:
    """Raises ModelUnusableError where a folder on this machine holds no model that can label, or not all of it.

    Args:
        model: its name, for messages; default the folder.
    """
    model = model or str(folder)
    names = [path.name for path in folder.iterdir()]
    check_files(model, names)
    check_config(model, (folder / CONFIG_FILE).read_bytes(), names)
    missing = [] if _INDEX_FILE not in names else _missing_parts(model, folder, names)
    if missing:
        raise IncompleteModelError(
            f"{model} lacks parts of its weights that {_INDEX_FILE} names ({_listed(missing)}); copy or download it "
            "again"
        )
    for name in filter(_is_weights, names):
        with (folder / name).open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise ModelUnusableError(
                    f"{name} in {model} is a pointer of Git LFS and not the weights; run `git lfs pull` in that folder"
                )


def _missing_parts(model: str, folder: Path, names: Collection[str]) -> list[str]:
    index = _read_json(model, _INDEX_FILE, (folder / _INDEX_FILE).read_bytes())
    parts = index.get("weight_map")
    if not isinstance(parts, dict):
        raise ModelUnusableError(f"{_INDEX_FILE} of {model} has no weight_map; download the file again")
    return sorted({str(part) for part in parts.values()} - set(names))


def _read_json(model: str, name: str, content: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ModelUnusableError(f"{name} of {model} is no JSON ({error}); download the file again") from error
    if not isinstance(values, dict):
        raise ModelUnusableError(f"{name} of {model} holds a {type(values).__name__}; expected an object")
    return values


def _is_weights(name: str) -> bool:
    return fnmatch(name, "model*.safetensors")


def _listed(names: Collection[str]) -> str:
    shown = sorted(name for name in names if not name.startswith("."))
    more = f" and {len(shown) - _N_NAMED} more" if len(shown) > _N_NAMED else ""
    return (", ".join(shown[:_N_NAMED]) or "no files") + more
