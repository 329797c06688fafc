"""The job that labels a sample of a source."""

from __future__ import annotations

from pipeline.forecast.job import SampleJob
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest


def test_the_metrics_of_a_sample_are_told_from_those_of_the_runs_jobs() -> None:
    request = LabelRequest(source="source", store="store", model="model")
    assert SampleJob(request, n_images=10, seed=0).started_at.endswith("+00:00 plan")
    assert LabelJob(request).started_at.endswith("+00:00")
