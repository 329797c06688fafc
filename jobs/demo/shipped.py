"""The scenes that ship with the package."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path

SHARDS = str(files("jobs.demo") / "shards")
N_SHIPPED = 200


def read_shipped(n_scenes: int) -> list[bytes]:
    """The first scenes, as JPEGs."""
    return list(islice(_read_jpegs(), n_scenes))


def _read_jpegs() -> Iterator[bytes]:
    for shard in sorted(Path(SHARDS).glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".jpg") else None
                if file:
                    yield file.read()
