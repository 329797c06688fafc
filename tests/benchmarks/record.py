"""What a benchmark record says besides its numbers: where, when, with which versions, from which commit."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from pipeline.machine import cpu_name

ROOT = Path(__file__).resolve().parents[2]
_MEASURED = ("model", "pipeline", "jobs", "schemas", "tests/benchmarks")
_VERSIONED = ("torch", "transformers", "ray", "pyarrow", "pillow")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---:"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def environment(device: str, command: str) -> str:
    """A markdown list of hardware, date, versions, commit and command."""
    return "\n".join(
        [
            f"- hardware: {hardware(device)}",
            f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            f"- Python {platform.python_version()}, {versions()}",
            f"- commit: {commit()}",
            f"- command: `{command}`",
        ]
    )


def versions() -> str:
    """Versions of those libraries that are there: the recognizer is measured without Ray too."""
    found = []
    for name in _VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def hardware(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return f"{cpu_name()}, {torch.get_num_threads()} thread(s) of torch"


def commit() -> str:
    """The commit of the working tree, marked where the measured code differs from it."""
    try:
        commit_id = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", *_MEASURED)
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git repository)"
    return f"{commit_id} with uncommitted changes" if changed else commit_id


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
