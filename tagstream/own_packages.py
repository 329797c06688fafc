"""Keeps a user's `model.py` or `pipeline/` apart from the packages of these names that tagstream is made of."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

OWN_PACKAGES = ("jobs", "model", "pipeline", "schemas")
ROOT = Path(__file__).resolve().parents[1]


class _OwnPackagesFirst:
    """Finds tagstream's packages where tagstream itself lies, whatever stands in front of them on the path."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(ROOT)]) if name in OWN_PACKAGES else None


def prefer_own_packages() -> None:
    """From here on the own packages are found first. For the command's process, in which no module of a user's runs."""
    sys.meta_path.insert(0, _OwnPackagesFirst)


def check_own_packages() -> None:
    """Raises ImportError where another file or folder would be imported in the place of one of the own packages."""
    for package in OWN_PACKAGES:
        spec = find_spec(package)
        expected = ROOT / package / "__init__.py"
        if spec is None or spec.origin is None or Path(spec.origin).resolve() != expected:
            found = "nothing" if spec is None else spec.origin or list(spec.submodule_search_locations or [])
            raise ImportError(
                f"tagstream needs its package {package!r} from {expected.parent}, and Python finds {found} first; "
                "give that another name, or start Python in another folder"
            )
