"""`python -m tagstream`, and the entry point of the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from tagstream.own_packages import ROOT, prefer_own_packages


def main() -> NoReturn:
    """Runs the command."""
    prefer_own_packages()
    from jobs.cli import main as run

    run()


if __name__ == "__main__":
    # Python puts the working directory in front, whose files may be called like modules that the command imports.
    if not sys.flags.safe_path and Path(sys.path[0]) != ROOT:
        del sys.path[0]
    main()
