"""A training job before Ray starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.training import job as job_module
from pipeline.training.job import TrainJob, TrainRequest
from tests.fixtures.servers.fake_hub import FakeHub


@pytest.mark.parametrize("role", ["init", "teacher"])
def test_a_model_that_cannot_be_used_is_told_before_the_source_is_listed_or_ray_starts(
    role: str, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(job_module, "joined_ray")
    request = TrainRequest(source="/nowhere", out=str(tmp_path / "out"), **{role: "org/text"})
    with pytest.raises(ModelError, match="org/text is a model of text"):
        TrainJob(request).run()
