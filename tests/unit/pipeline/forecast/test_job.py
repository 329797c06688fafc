"""What a plan refuses before it labels anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import job as job_module
from pipeline.cluster import Node
from pipeline.errors import TagstreamError
from pipeline.forecast.job import ForecastJob, ForecastRequest, SampleJob
from pipeline.job import LabelRequest
from tests.fixtures.corpus import shard_bytes


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """50 images, and a machine without GPUs on which nothing is to be labelled."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "0.tar").write_bytes(shard_bytes(0, 50))
    monkeypatch.setattr(job_module, "available_nodes", lambda _: [Node(2, 0)])
    monkeypatch.setattr(SampleJob, "_start_ray", lambda _: pytest.fail("Ray was started"))
    return str(tmp_path / "source")


def test_more_gpus_are_refused_where_there_are_none(source: str, tiny_model: Path) -> None:
    request = LabelRequest(source=source, store="", model=str(tiny_model))
    with pytest.raises(TagstreamError, match=r"--gpus 8 predicts from what a GPU does, and the sample .* on cpu"):
        ForecastJob(ForecastRequest(label=request, n_gpus=8)).run()
