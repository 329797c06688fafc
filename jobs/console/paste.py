"""Commands that the user may paste: quoted, and with `tagstream` called as it was called this time."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def to_paste(*words: str) -> str:
    """A command with these words behind `tagstream`, for the user's shell."""
    return " ".join((_called_as(), *map(_quoted, words)))


def _quoted(word: str) -> str:
    # SQL is full of single quotes: in double ones it stays legible, where the shell would change nothing.
    if "'" in word and not set(word) & set('"$`!\\'):
        return f'"{word}"'
    return shlex.quote(word)


def _called_as() -> str:
    """How this program was called, as words for a shell."""
    program = Path(sys.argv[0])
    if "UV_RUN_RECURSION_DEPTH" in os.environ:
        # uv puts the command on the path of what it runs alone.
        return "uv run tagstream"
    if program.parts[-2:] == ("tagstream", "__main__.py"):
        return f"{_shortest('python', Path(sys.executable))} -m tagstream"
    # Anything else is a program of its own that calls this one.
    return _shortest("tagstream", program) if program.name == "tagstream" else "tagstream"


def _shortest(name: str, program: Path) -> str:
    """A program as a shell finds it: by its name where the shell's path leads to it, else by its path."""
    found = shutil.which(name)
    is_on_path = found is not None and Path(found).absolute() == program.absolute()
    return name if is_on_path else shlex.quote(str(program))
