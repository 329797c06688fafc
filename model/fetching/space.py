"""Room on a disk for a model, known before it is fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

from model.fetching.refusal import ModelUnusableError


def check_space(cache: Path, model: str, needed_bytes: int, variable: str) -> None:
    """Raises ModelUnusableError where a cache's disk has no room for what is missing of a model.

    Args:
        cache: the folder that it is fetched to; it need not exist yet.
        model: its name, for messages.
        needed_bytes: what is missing.
        variable: the environment variable that names another folder for the cache.
    """
    free_bytes = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free
    if needed_bytes > free_bytes:
        needed = f"{needed_bytes / 1e9:,.2f} GB more, {free_bytes / 1e9:,.2f} GB are free"
        raise ModelUnusableError(no_space(cache, model, needed, variable))


def no_space(cache: Path, model: str, needed: str, variable: str) -> str:
    """That a model does not fit on a disk. `needed` says what it needs there and what is free, as a clause."""
    return (
        f"the disk of {cache} is too full: {model} needs {needed}; make room, or set {variable} to a folder on a "
        "larger disk"
    )
