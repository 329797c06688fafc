"""`--config`: settings from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click


def read_config(path: str | None) -> dict[str, Any]:
    """What the file holds; nothing where none is given. Raises UsageError for a file that is no TOML."""
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is no valid TOML: {error}") from error
