"""Commands to paste."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.console.paste import to_paste


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A program called tagstream, and the folder it is in."""
    program = tmp_path / "my venv" / "bin" / "tagstream"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("called", "path", "start"),
    [
        ("{bin}/tagstream", "{bin}", "tagstream"),
        ("{bin}/tagstream", "/usr/bin", "'{bin}/tagstream'"),
        (".venv/bin/tagstream", "/usr/bin", ".venv/bin/tagstream"),
        ("/x/tagstream/__main__.py", "/usr/bin", f"{shlex.quote(sys.executable)} -m tagstream"),
        ("/x/tagstream/__main__.py", str(Path(sys.executable).parent), "python -m tagstream"),
        ("/x/jobs/cli.py", "/usr/bin", "tagstream"),
    ],
)
def test_it_begins_as_the_program_was_called(
    installed: Path, monkeypatch: pytest.MonkeyPatch, called: str, path: str, start: str
) -> None:
    folder = str(installed.parent)
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    monkeypatch.setenv("PATH", path.format(bin=folder))
    monkeypatch.setattr(sys, "argv", [called.format(bin=folder)])
    assert to_paste("status", "tags") == f"{start.format(bin=folder)} status tags"


def test_it_begins_with_uv_run_where_uv_runs_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert to_paste("status", "tags") == "uv run tagstream status tags"


def test_a_shell_gives_back_the_words(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["sql", "my store", "SELECT 'it''s $HOME' AS \"a\"", "*", "~"]
    installed.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    monkeypatch.setenv("PATH", os.pathsep.join([str(installed.parent), os.environ["PATH"]]))
    monkeypatch.setattr(sys, "argv", [str(installed)])
    told = subprocess.run(to_paste(*words), shell=True, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == words
