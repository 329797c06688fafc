"""The installed command, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.processes.commands import TAGSTREAM, RunFunction


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of this process with a cache of the test's own."""
    return {**os.environ, "TAGSTREAM_CACHE": str(tmp_path / "cache")}


@pytest.fixture
def tagstream(environment: dict[str, str], tmp_path: Path) -> RunFunction:
    """Runs the command to its end, output captured."""

    def run(*arguments: object, timeout_s: int = 300) -> subprocess.CompletedProcess[str]:
        command = [TAGSTREAM, *map(str, arguments)]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    return run
