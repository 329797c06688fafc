"""What a plan refuses before it labels anything, and what it takes from the sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from model.folder import DEMO_MODEL
from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.errors import TagstreamError
from pipeline.forecast.job import ForecastJob, ForecastRequest, SampleAssignment, SampleJob, sample_costs
from pipeline.labelling import job as job_module
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.corpus import shard_bytes
from tests.fixtures.labelling import label_with
from tests.fixtures.recognizers.instant_labeler import InstantLabeler, paced
from tests.fixtures.stored.tables import job_record


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """50 images, and a machine without GPUs on which nothing is to be labelled."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "0.tar").write_bytes(shard_bytes(0, 50))
    monkeypatch.setattr(job_module, "available_nodes", lambda _: [Node(2, 0)])
    monkeypatch.setattr(job_module, "joined_ray", lambda *_: pytest.fail("Ray was started"))
    return str(tmp_path / "source")


def test_more_gpus_are_refused_where_there_are_none(source: str, tiny_model: Path) -> None:
    request = LabelRequest(source=source, store="", model=str(tiny_model))
    with pytest.raises(TagstreamError, match=r"--gpus 8 predicts from what a GPU does, and the sample .* on cpu"):
        ForecastJob(ForecastRequest(label=request, n_gpus=8)).run()


@pytest.mark.parametrize(
    ("n_images", "message"),
    [
        (2000, r"the source has only 50 images, which come back in 2 results, .* run `tagstream label` without a plan"),
        (40, r"a sample of 40 images comes back in 2 results, .*; expected 4 or more: ask for a larger --sample"),
    ],
)
def test_what_is_too_little_to_tell_is_refused(source: str, tiny_model: Path, n_images: int, message: str) -> None:
    settings = LabelSettings(batch_size=32)
    request = LabelRequest(source=source, store="", model=str(tiny_model), settings=settings)
    with pytest.raises(TagstreamError, match=message):
        ForecastJob(ForecastRequest(label=request, n_images=n_images)).run()


def test_a_sample_reuses_the_labels_of_the_stores_that_the_job_would(source: str, tmp_path: Path) -> None:
    label_with(DEMO_MODEL, source, tmp_path / "store", labeler_class=InstantLabeler)
    settings = LabelSettings(top_k=5, batch_size=8, reuse=True, reuse_stores=(str(tmp_path / "store"),))
    request = LabelRequest(source=source, store="", model=DEMO_MODEL, settings=settings, labeler_class=paced(0.4))
    made = ForecastJob(ForecastRequest(label=request)).run()
    assert (made.n_reused, made.n_sampled) == (50, 50)


def test_the_metrics_of_a_sample_are_told_from_those_of_the_runs_jobs() -> None:
    request = LabelRequest(source="source", store="store", model="model")
    assert SampleJob(request, SampleAssignment(None, n_images=10, seed=0)).started_at.endswith("+00:00 plan")
    assert LabelJob(request).started_at.endswith("+00:00")


def test_a_sample_is_labelled_by_all_actors_from_the_start() -> None:
    pool = plan_pool([Node(8, 2)], LabelSettings(min_actors=1, max_actors=2))
    fitted = SampleAssignment(None, n_images=10, seed=0, n_gpus=8).fit_pool(pool)
    assert (pool.min_actors, fitted.min_actors, fitted.n_actors) == (1, 2, 2)


def result(**seconds: list[float]) -> pa.Table:
    """A result of 20 images in two batches, each with its seconds on its first row."""
    given = {"decode_s": [0.0], "reader_s": [0.2, 0.2], "n_bytes": [100] * 20, "view_bytes": [12] * 20, **seconds}
    return pa.table({name: values + [0] * (20 - len(values)) for name, values in given.items()})


def test_the_first_result_counts_for_no_stage_since_a_model_does_much_only_once() -> None:
    assignment = SampleAssignment(None, n_images=70, seed=0)
    # Two batches of 10 images in each result.
    results = [[9.0, 1.0], [1.0, 2.0], [3.0, 2.0]]
    tables = [result(read_s=[0.1, 0.1], infer_s=infer_s) for infer_s in results]
    for table in tables:
        assignment.on_rows(table)
    record = replace(job_record("r"), n_images=60, seconds_by_stage={"infer": 18.0, "write": 0.6})
    costs = sample_costs(record, assignment.results, [], looking_s=0.0)
    assert [n_images for _, n_images in costs.arrivals] == [20, 20, 20]
    assert costs.seconds_an_image == pytest.approx({"read": 0.01, "decode": 0.0, "infer": 8 / 40, "write": 0.01})
    assert (costs.n_bytes, costs.view_bytes, costs.reader_s) == (100, 12, 0)
    # A task of three CPUs holds all of them for an image.
    assert sample_costs(record, assignment.results, [], 0.0, 3).reader_s == pytest.approx(3 * 0.02)
