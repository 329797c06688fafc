"""A store on disk or on an object store: which runs it holds. `pipeline.store.layout` says where everything lies."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath

from pipeline.errors import StoreError
from pipeline.storage.files import Filesystem, is_local, open_filesystem, storage_errors
from pipeline.store.layout import Layout
from pipeline.store.run import Run
from schemas import RunRecord

# What `--run` calls the latest run.
LATEST = "latest"
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Store:
    """A store of any number of runs, local or on an object store.

    Attributes: `url`, as the user gave it; `filesystem`, `root` and `layout`, where its files lie.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with storage_errors(f"open the store {url}"):
            self.filesystem, self.root = open_filesystem(url)
        self.layout = Layout(self.root)

    def exists(self) -> bool:
        """Whether any run was ever made here."""
        return bool(self.run_names())

    def run(self, name: str) -> Run:
        """The run of this name, whether it was made yet or not."""
        return Run(name, self.url, self.filesystem, self.layout.run(name))

    def run_names(self) -> list[str]:
        """Names of the store's runs, sorted."""
        with storage_errors(f"read the store {self.url}"):
            folder = self.layout.runs
            try:
                entries = self.filesystem.ls(folder, detail=False)
            except FileNotFoundError:
                return []
            names = [PurePosixPath(entry.rstrip("/")).name for entry in entries if entry.rstrip("/") != folder]
            return sorted(name for name in names if _RUN_NAME.fullmatch(name))

    def check_outside(self, url: str, filesystem: Filesystem, path: str) -> None:
        """Raises StoreError where what is to be written would lie in the store.

        Args:
            url: as the user gave the place.
            filesystem, path: where that is.
        """
        if is_local(filesystem) and is_local(self.filesystem):
            # Links must not lead into the store.
            is_inside = Path(path).resolve().is_relative_to(Path(self.root).resolve())
        else:
            own = f"{self.filesystem.unstrip_protocol(self.root)}/"
            is_inside = f"{filesystem.unstrip_protocol(path)}/".startswith(own)
        if is_inside:
            raise StoreError(f"{url} lies in the store {self.url}, which is only read; give a place outside")

    def create_run(self, record: RunRecord) -> RunRecord:
        """Makes the run that a record describes, unless it exists; returns the record that stands, perhaps another's.

        Raises StoreError for a name that cannot be part of a path, and for `latest`.
        """
        check_run_name(record.run)
        if record.run == LATEST:
            raise StoreError(f"a new run cannot be called {LATEST}, which means the latest run; choose another name")
        return self.run(record.run).create(record)


def no_store(url: str) -> StoreError:
    """The error for a store that is not there, with the command that makes it."""
    command = f"tagstream label SOURCE --store {shlex.quote(url)}"
    return StoreError(f"there is no store at {url}; `{command}` makes one")


def check_run_name(name: str) -> None:
    """Raises StoreError for a name that cannot be part of a path."""
    if not _RUN_NAME.fullmatch(name):
        raise StoreError(f"run name {name!r} cannot be used; expected letters, digits, '.', '_', '-', at most 100")
