"""A model's folder: where it is found. Its weights are not read here, and torch is not loaded."""

from __future__ import annotations

import json
from pathlib import Path

from model.fetching.architecture import NXTP_MODEL_TYPE
from model.fetching.files import CONFIG_FILE, PREPROCESSOR_FILE, check_folder
from model.fetching.hub_name import HubName
from model.fetching.known_models import similar_names
from model.fetching.pinned import PinnedModel
from model.fetching.refusal import TABLE_HINT, ModelUnusableError

__all__ = ["DEMO_MODEL", "PREPROCESSOR_FILE", "is_hub_model", "pin_model", "resolve_folder"]

DEMO_MODEL = "demo"
_DEMO_FOLDER = Path(__file__).parent / DEMO_MODEL


def pin_model(model: str | Path) -> PinnedModel:
    """A model under a name for processes elsewhere and for later: a folder's absolute path, or `org/name@commit`.

    `demo` stays as it is. Raises ModelUnusableError where the model cannot be had, or is of a kind that cannot label;
    of a model of the hub no weights are fetched for that.
    """
    place = _find(model)
    if isinstance(place, Path):
        check_folder(place)
        return PinnedModel(DEMO_MODEL if model == DEMO_MODEL else str(place.resolve()))
    # Takes a while to import.
    from model.fetching.repository import pin

    return pin(place)


def resolve_folder(model: str | Path) -> Path:
    """The local folder of a model. One of the hub is downloaded into the hub's cache.

    `demo` is the model that comes along; a folder of that name is `./demo`. Raises ModelUnusableError as `pin_model`
    does.
    """
    place = _find(model)
    if isinstance(place, Path):
        check_folder(place)
        return place
    from model.fetching.repository import download, pin

    name = HubName.parse(pin(place).name)
    assert name is not None
    return download(name)


def _find(model: str | Path) -> Path | HubName:
    """The folder or the model of the hub that a name means."""
    folder = _DEMO_FOLDER if model == DEMO_MODEL else Path(model)
    if folder.is_dir():
        return folder
    name = HubName.parse(str(model))
    if name is None:
        near = similar_names(str(model))
        hint = f" (near it on the hub: {', '.join(near)})" if near else ""
        raise ModelUnusableError(
            f"there is no model {model}: no such folder, and models of the hub are named org/name{hint}; {TABLE_HINT}"
        )
    return name


def is_hub_model(folder: str | Path) -> bool:
    """Whether a model's folder holds a model of transformers, and no NXTP recognizer."""
    config = Path(folder, CONFIG_FILE)
    described = json.loads(config.read_text()) if config.is_file() else {}
    return bool(described.get("model_type", NXTP_MODEL_TYPE) != NXTP_MODEL_TYPE)
