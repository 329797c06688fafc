"""From what a sample took to what everything will take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate
from pipeline.forecast.extent import Extent
from pipeline.forecast.forecast import Forecast, OutputSizes, forecast
from pipeline.forecast.intervals import student_t
from pipeline.forecast.pace import SampleCosts, Workers
from pipeline.sources.shard import Shard
from pipeline.sources.shard_reader import Head

SHARD = Shard("a", "a.tar", "tar", 1000)
EXTENT = Extent(
    n_shards=10, n_bytes=10_000, n_images=Estimate(1000, 1000, 1000), heads=[Head(SHARD, 20, 200, 1000)] * 5
)
# Ten images every second, from the third second on.
COSTS = SampleCosts(
    n_images=110,
    n_rejected=1,
    start_up_s=3.0,
    arrivals=[(3.0 + second, 10) for second in range(11)],
    shard_costs=[(22, 2.2)] * 5,
    seconds_an_image={"read": 0.01, "decode": 0.02, "infer": 0.08, "write": 0.001},
)
OUTPUT = OutputSizes(
    bytes_a_shard=100, label_bytes_an_image=40, image_bytes_an_image=10, compacted_label_bytes_an_image=20
)
CPU = Workers(n_actors=1, gpus_per_actor=0.0, device="cpu", batch_size=16, n_readers=1, n_writers=8)
DESCRIBED = {"run": "r", "source": "/s", "fingerprint": "f"}


def predict(costs: SampleCosts = COSTS, workers: Workers = CPU, extent: Extent = EXTENT, **options: Any) -> Forecast:
    return forecast(extent, costs, OUTPUT, workers, **DESCRIBED, **options)


class TestWhatEverythingTakes:
    """Time, cost, bytes, the bottleneck."""

    def test_the_start_is_paid_once_and_the_rest_by_the_image(self) -> None:
        made = predict()
        assert made.images_per_s.value == pytest.approx(10)
        assert made.seconds.value == pytest.approx(3 + 1000 / 10)
        assert made.seconds.low == pytest.approx(made.seconds.high)

    def test_the_cost_is_that_of_the_hours(self) -> None:
        made = predict(usd_per_hour=36.0)
        assert made.usd is not None
        assert made.usd.value == pytest.approx(1.03)

    def test_bytes_are_those_of_the_images_and_of_as_many_files_as_shards(self) -> None:
        made = predict()
        assert made.output_bytes.value == 1000 * 50 + 10 * 100
        assert made.compacted_bytes.value == 1000 * 30

    def test_the_bottleneck_is_the_stage_whose_workers_manage_least(self) -> None:
        made = predict()
        assert made.bottleneck == "infer"
        assert [round(stage.share, 3) for stage in made.stages] == [0.09, 0.18, 0.721, 0.009]
        assert [stage.images_per_s for stage in made.stages] == pytest.approx([100, 50, 12.5, 8000])

    def test_no_stage_is_said_to_manage_less_than_it_was_seen_to_do(self) -> None:
        # As where a part of the seconds lies before the first result.
        made = predict(replace(COSTS, seconds_an_image={"read": 0.11, "decode": 0.12, "infer": 0.14, "write": 0.0}))
        assert (made.bottleneck, made.images_per_s.value) == ("infer", pytest.approx(10))
        assert [stage.images_per_s for stage in made.stages[:3]] == pytest.approx([10, 10, 10])
        assert [stage.seconds_an_image for stage in made.stages[:3]] == [0.11, 0.12, 0.14]

    def test_an_uncertain_number_of_images_widens_everything(self) -> None:
        made = predict(extent=replace(EXTENT, n_images=Estimate(1000, 800, 1250)))
        assert (made.seconds.low, made.seconds.high) == pytest.approx((3 + 80, 3 + 125))
        assert made.output_bytes.low == 800 * 50 + 1000

    def test_a_part_of_the_source_takes_its_part_of_the_time(self) -> None:
        made = predict()
        assert made.seconds_for(10_000) == pytest.approx(103)
        assert made.seconds_for(5_000) == pytest.approx(53)
        assert made.seconds_for(10_000, n_images_at_most=20) == pytest.approx(5)
        # More than there was when it was planned.
        assert made.seconds_for(20_000) == pytest.approx(103)


# From a table of Student's t.
@pytest.mark.parametrize(("n_free", "expected"), [(3, 3.182), (5, 2.571), (9, 2.262), (30, 2.042), (10_000, 1.960)])
def test_the_quantile_is_that_of_the_table(n_free: int, expected: float) -> None:
    assert student_t(n_free) == pytest.approx(expected, rel=0.01)


def test_a_forecast_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for made in (predict(), predict(usd_per_hour=2.0)):
        path.write_text(made.to_json())
        assert Forecast.read(str(path)) == made


def test_a_forecast_of_before_is_read_whose_actors_decoded(tmp_path: Path) -> None:
    values = json.loads(predict().to_json())
    for name in ("cpus_per_actor", "decode_threads", "n_elsewhere", "decode_in"):
        del values["workers"][name]
    (tmp_path / "plan.json").write_text(json.dumps(values))
    assert Forecast.read(str(tmp_path / "plan.json")).workers.decode_in == "actor"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": 3}', json.dumps({"stages": 1})])
def test_what_is_no_forecast_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(TagstreamError, match=r"plan.json is no forecast .* `tagstream plan --format json` prints"):
        Forecast.read(str(tmp_path / "plan.json"))
