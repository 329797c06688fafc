"""Labelling jobs in this process: only Ray is left out."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pipeline.labelling import job as job_module
from pipeline.labelling import shard_flow
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import label_here, labelling_by


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs label in this thread, by the recognizer that costs nothing."""
    monkeypatch.setattr(job_module, "joined_ray", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label_here))


@pytest.fixture
def label_request(tmp_path: Path) -> LabelRequest:
    """Three shards of two samples."""
    write_tars(tmp_path / "source", 3, 2)
    settings = LabelSettings(top_k=5, batch_size=8)
    source, store = str(tmp_path / "source"), str(tmp_path / "store")
    return LabelRequest(source=source, store=store, model="demo", run="r", settings=settings)
