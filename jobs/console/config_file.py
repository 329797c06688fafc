"""`--config` and `--preset`: settings from TOML files."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

_PRESETS = files("jobs") / "presets"


def read_config(path: str | None) -> dict[str, Any]:
    """The settings in a TOML file; none for None. Raises UsageError where the file is not TOML."""
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is no valid TOML: {error}") from error


def read_preset(name: str | None) -> dict[str, Any]:
    """The settings of a preset of jobs/presets; none for None. Raises UsageError for an unknown name."""
    if name is None:
        return {}
    known = sorted(path.name.removesuffix(".toml") for path in _PRESETS.iterdir() if path.name.endswith(".toml"))
    if name not in known:
        raise click.UsageError(f"there is no preset {name}; expected one of {', '.join(known)}")
    return tomllib.loads((_PRESETS / f"{name}.toml").read_text("utf-8"))
