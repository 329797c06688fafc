"""Stores without a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


# SeaweedFS is asked the same in integration/test_object_store.py.
@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.long)])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on the local disk and one on S3."""
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    return Store(f"{request.getfixturevalue('s3')}/{tmp_path.name}/store")
