"""Brings a model's folder onto a node's disk, once per node."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from filelock import FileLock

from model.recognizer import resolve_folder
from pipeline.errors import ModelError
from pipeline.storage import open_filesystem, storage_errors

_MODEL_SUFFIXES = (".json", ".safetensors", ".txt")


def fetch_model(model: str) -> str:
    """The local folder of a model.

    A hub id is downloaded into the hub's cache. A URL (`s3://...`) is copied into the node's cache (`TAGSTREAM_CACHE`,
    default ~/.cache/tagstream) under a name made of its files' versions; processes of a node that ask at the same time
    wait for one download. Raises ModelError where there is no model.
    """
    if "://" not in model:
        try:
            return str(resolve_folder(model))
        except (OSError, ValueError) as error:
            raise ModelError(f"there is no model {model}: {' '.join(str(error).split())}") from error
    return str(_fetch(model))


def _fetch(model: str) -> Path:
    with storage_errors(f"read the model {model}"):
        filesystem, path = open_filesystem(model)
        listed = [
            info for info in filesystem.find(path, detail=True).values() if info["name"].endswith(_MODEL_SUFFIXES)
        ]
        if not any(info["name"].endswith("/config.json") for info in listed):
            raise ModelError(f"there is no model at {model}; expected a folder with config.json and *.safetensors")
        versions = sorted((info["name"], info["size"], str(info.get("ETag", ""))) for info in listed)
        name = Path(path).name + "-" + hashlib.sha256(repr(versions).encode()).hexdigest()[:16]
        folder = cache_folder() / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder) + ".lock"):
            if not folder.is_dir():
                # Downloaded beside and renamed: a folder that exists is whole.
                partial = folder.parent / f".{name}.{uuid.uuid4().hex}"
                try:
                    for info in listed:
                        target = partial / info["name"].removeprefix(path).lstrip("/")
                        target.parent.mkdir(parents=True, exist_ok=True)
                        filesystem.get_file(info["name"], str(target))
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    return folder


def model_name(model: str) -> str:
    """A short name for a model, as it appears in a run's name."""
    name = Path(model.rstrip("/")).name or "model"
    return "".join(character if character.isalnum() or character in "-_." else "-" for character in name)


def cache_folder() -> Path:
    """Where this node keeps models: `TAGSTREAM_CACHE`, default ~/.cache/tagstream."""
    return Path(os.environ.get("TAGSTREAM_CACHE") or Path.home() / ".cache" / "tagstream") / "models"
