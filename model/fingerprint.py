"""What makes two recognizer folders the same: weights, configuration, preprocessing and tokenizer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from model.folder import PREPROCESSOR_FILE

# Fields that say who wrote a file, not what the model computes.
_PROVENANCE_FIELDS = frozenset({"transformers_version", "_name_or_path", "name_or_path"})
_DESCRIPTIONS = ("config.json", PREPROCESSOR_FILE, "tokenizer.json", "tokenizer_config.json")


def fingerprint_folder(folder: str | Path) -> str:
    """A recognizer's fingerprint, 64 hex digits (sha256 over everything that decides its labels).

    Folders that label alike have the same fingerprint wherever they lie and whatever else lies in them.
    """
    digest = hashlib.sha256()
    folder = Path(folder)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            _add(digest, path.name, hashlib.file_digest(file, "sha256").hexdigest())
    for name in _DESCRIPTIONS:
        if (folder / name).is_file():
            description = _without_provenance(json.loads((folder / name).read_text()))
            _add(digest, name, json.dumps(description, sort_keys=True))
    return digest.hexdigest()


def _add(digest: Any, name: str, content: str) -> None:
    digest.update(f"{name}\0{content}\0".encode())


def _without_provenance(description: Any) -> Any:
    if isinstance(description, dict):
        return {key: _without_provenance(value) for key, value in description.items() if key not in _PROVENANCE_FIELDS}
    return description
