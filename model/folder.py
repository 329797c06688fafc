"""A recognizer's folder: where it is found. Its weights are not read here, and torch is not loaded."""

from __future__ import annotations

import json
from pathlib import Path

DEMO_MODEL = "demo"
PREPROCESSOR_FILE = "preprocessor_config.json"
NXTP_MODEL_TYPE = "nxtp-recognizer"
_DEMO_FOLDER = Path(__file__).parent / DEMO_MODEL


def resolve_folder(path: str | Path) -> Path:
    """The local folder of a recognizer; a hub id is downloaded into the hub's cache. Raises OSError without one.

    `demo` is the model that comes along; a folder of that name is `./demo`.
    """
    folder = _DEMO_FOLDER if path == DEMO_MODEL else Path(path)
    if folder.is_dir():
        if not (folder / "config.json").is_file() or not (folder / PREPROCESSOR_FILE).is_file():
            raise FileNotFoundError(
                f"{folder} is no recognizer: config.json and {PREPROCESSOR_FILE} are expected in it"
            )
        return folder
    if folder.is_absolute() or str(path).count("/") != 1 or str(path).startswith("."):
        raise FileNotFoundError(f"there is no recognizer folder {path}")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path)))


def is_hub_model(folder: str | Path) -> bool:
    """Whether a model's folder holds a model of transformers, and no NXTP recognizer."""
    config = Path(folder, "config.json")
    described = json.loads(config.read_text()) if config.is_file() else {}
    return bool(described.get("model_type", NXTP_MODEL_TYPE) != NXTP_MODEL_TYPE)
