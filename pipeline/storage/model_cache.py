"""Brings a model's folder onto a node's disk, once per node, and loads it from there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from model.folder import DEMO_MODEL, resolve_folder
from pipeline.errors import ModelError, TagstreamError
from pipeline.storage.files import open_filesystem, storage_errors
from pipeline.text import one_line

if TYPE_CHECKING:
    from model.recognizer import Recognizer

_MODEL_SUFFIXES = (".json", ".safetensors", ".txt")
_MAX_NAME_CHARACTERS = 60


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
            raise ModelError(f"there is no model {model}: {one_line(error)}") from error
    return str(_fetch(model))


def load_recognizer(model: str, device: str, dtype: str | None = None) -> Recognizer:
    """The recognizer of a model, fetched as by `fetch_model`, without a progress bar.

    Args:
        device: torch's name of the device that it computes on.
        dtype: float32, bfloat16 or float16; default the dtype that the weights are stored in.

    Raises ModelError where there is no model.
    """
    from transformers.utils import logging

    from model.recognizer import Recognizer

    logging.disable_progress_bar()
    return Recognizer.from_pretrained(fetch_model(model), device=device, dtype=dtype)


def check_names(model: str, names: Sequence[tuple[str, str]]) -> None:
    """Raises TagstreamError where a name cannot be a label of a model, whose tokenizer alone is loaded.

    Args:
        names: each with the list that it stands in.
    """
    from model.name_tokens import NameTokens

    tokens = NameTokens.from_pretrained(fetch_model(model))
    problems = []
    for name, of_list in names:
        try:
            tokens.ids(name)
        except ValueError as error:
            problems.append(f"{one_line(error)} (list {of_list})")
    if problems:
        more = f"; {len(problems):,} of {len(names):,} names cannot be labels" if len(problems) > 1 else ""
        raise TagstreamError(f"{problems[0]}{more}")


def _fetch(model: str) -> Path:
    with storage_errors(f"read the model {model}"):
        filesystem, path = open_filesystem(model)
        found = filesystem.find(path, maxdepth=1, detail=True).values()
        listed = [info for info in found if info["name"].endswith(_MODEL_SUFFIXES)]
        if not any(Path(info["name"]).name == "config.json" for info in listed):
            raise ModelError(f"there is no model at {model}; expected a folder with config.json and *.safetensors")
        versions = sorted((info["name"], info["size"], _version(info)) for info in listed)
        name = model_name(model) + "-" + hashlib.sha256(repr(versions).encode()).hexdigest()[:16]
        folder = cache_folder() / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder) + ".lock"):
            if not folder.is_dir():
                # Downloaded beside and renamed: a folder that exists is whole.
                partial = folder.parent / f".{name}.{uuid.uuid4().hex}"
                try:
                    partial.mkdir()
                    for info in listed:
                        filesystem.get_file(info["name"], str(partial / Path(info["name"]).name))
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    return folder


def _version(info: dict[str, Any]) -> str:
    """What changes when a listed file does: the object store's etag, elsewhere the time it was written."""
    known = (info.get(name) for name in ("ETag", "etag", "LastModified", "mtime"))
    return str(next((value for value in known if value), ""))


def model_name(model: str) -> str:
    """A short name for a model, as it appears in a run's name: ASCII letters, digits, and behind them `.`, `_`, `-`."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", Path(model.rstrip("/")).name)
    return name.lstrip("._-")[:_MAX_NAME_CHARACTERS] or "model"


def cache_folder() -> Path:
    """Where this node keeps models: `TAGSTREAM_CACHE`, default ~/.cache/tagstream."""
    return Path(os.environ.get("TAGSTREAM_CACHE") or Path.home() / ".cache" / "tagstream") / "models"


def as_seen_by_workers(model: str) -> str:
    """A model's name for processes with another working directory: folders absolute, URLs and names as they are."""
    is_folder = model != DEMO_MODEL and "://" not in model and Path(model).is_dir()
    return str(Path(model).resolve()) if is_folder else model
