"""A user's files that are called like tagstream's packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tagstream
from tagstream.own_packages import OWN_PACKAGES

ROOT = Path(__file__).parents[3]
NAMES = ("jobs", "model", "pipeline", "schemas", "utils", "click", "text")


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder of modules that are called like those that tagstream imports, and that must not be imported."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user was imported')")
    return tmp_path


def python(*arguments: str, cwd: Path, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_python_m_tagstream_runs_the_command_in_a_folder_of_modules_of_these_names(crowded: Path) -> None:
    done = python("-m", "tagstream", "status", "--help", cwd=crowded)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: tagstream status")


def test_the_command_finds_its_packages_behind_those_of_the_python_path(crowded: Path) -> None:
    (crowded / "click.py").unlink()
    (crowded / "text.py").unlink()
    program = "import sys; sys.argv = ['tagstream', 'status', '--help']; import tagstream.__main__ as m; m.main()"
    done = python("-P", "-c", program, cwd=crowded, path=f"{crowded}:{ROOT}")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_library_names_the_file_that_stands_in_its_way(crowded: Path) -> None:
    done = python("-c", "import tagstream; tagstream.TagstreamError", cwd=crowded)
    assert done.returncode == 1
    assert f"and Python finds {crowded}/jobs.py first; give that another name" in done.stderr


def test_its_import_loads_nothing_and_its_names_are_there_when_they_are_asked_for(tmp_path: Path) -> None:
    program = (
        "import sys, tagstream\n"
        f"print([name for name in sys.modules if name.split('.')[0] in {OWN_PACKAGES}])\n"
        "print([getattr(tagstream, name).__name__ for name in tagstream.__all__] == tagstream.__all__)"
    )
    assert python("-c", program, cwd=tmp_path).stdout.splitlines() == ["[]", "True"]


def test_a_name_that_it_does_not_have_is_told_with_those_that_it_has() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'; it has Label, LabelJob"):
        tagstream.Recogniser  # noqa: B018
