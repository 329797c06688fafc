"""What makes two models' folders the same: weights, configuration, preprocessing, prompt template and tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from model.folder import PREPROCESSOR_FILE, is_hub_model

# Fields that say who wrote a file, not what the model computes.
_PROVENANCE_FIELDS = frozenset({"transformers_version", "_name_or_path", "name_or_path"})
_DESCRIPTIONS = ("config.json", PREPROCESSOR_FILE, "tokenizer.json", "tokenizer_config.json")
# Of models of the hub: how pictures and prompts are made, where the model's turn ends, tokenizers in older forms.
_HUB_DESCRIPTIONS = (
    "processor_config.json",
    "generation_config.json",
    "chat_template.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
_HUB_FILES = ("chat_template.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fingerprint_folder(folder: str | Path) -> str:
    """A recognizer's fingerprint, 64 hex digits (sha256 over everything that decides its labels).

    Folders that label alike have the same fingerprint wherever they lie and whatever else lies in them.
    """
    digest = hashlib.sha256()
    folder = Path(folder)
    for path in sorted(folder.glob("*.safetensors")):
        _add(digest, path.name, _sha256_of(path))
    is_of_hub = is_hub_model(folder)
    for name in (*_DESCRIPTIONS, *(_HUB_DESCRIPTIONS if is_of_hub else ())):
        if (folder / name).is_file():
            description = _without_provenance(json.loads((folder / name).read_text()))
            _add(digest, name, json.dumps(description, sort_keys=True))
    for path in (folder / name for name in _HUB_FILES if is_of_hub):
        if path.is_file():
            _add(digest, path.name, _sha256_of(path))
    return digest.hexdigest()


def _sha256_of(path: Path) -> str:
    # The hub's cache links to files that are named by their digest: 16 GB need not be read for it at each start.
    if path.is_symlink() and _SHA256.fullmatch(path.readlink().name):
        return path.readlink().name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(digest: Any, name: str, content: str) -> None:
    digest.update(f"{name}\0{content}\0".encode())


def _without_provenance(description: Any) -> Any:
    if isinstance(description, dict):
        return {key: _without_provenance(value) for key, value in description.items() if key not in _PROVENANCE_FIELDS}
    return description
