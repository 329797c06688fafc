"""Good stores, to be damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.store.store import Store
from tests.fixtures.corpus import sample_members, tar_bytes, write_tars
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import job_record
from tests.fixtures.stored.verified import FOUND, RUN, all_rows, compact, copy_store


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards: two of good samples, one with a repeated key and a sample without an image."""
    folder = tmp_path_factory.mktemp("source")
    write_tars(folder, 2, 4)
    again = sample_members("a", 90)
    odd = [*again, *sample_members("b", 91), *again, ("c.txt", b"no image")]
    (folder / "odd.tar").write_bytes(tar_bytes(odd))
    return folder


@pytest.fixture(scope="module")
def templates(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good stores, to be copied: one as jobs leave it, one compacted."""
    folder = tmp_path_factory.mktemp("stores")
    for kind in ("plain", "compacted"):
        store = Store(str(folder / kind))
        label_source(store, RUN, str(source), FOUND)
        store.run(RUN).write_job(job_record(RUN))
        if kind == "compacted":
            compact(store)
    return {kind: folder / kind for kind in ("plain", "compacted")}


@pytest.fixture(scope="module")
def good_rows(templates: dict[str, Path]) -> dict[str, list[Any]]:
    """Every row of a good store."""
    return all_rows(Store(str(templates["plain"])))


@pytest.fixture
def store(templates: dict[str, Path], tmp_path: Path) -> Store:
    """A good store as jobs leave it."""
    return copy_store(templates["plain"], tmp_path)


@pytest.fixture
def compacted(templates: dict[str, Path], tmp_path: Path) -> Store:
    """A good store that was compacted."""
    return copy_store(templates["compacted"], tmp_path)
