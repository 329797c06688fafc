"""From what a sample took to what everything will take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate
from pipeline.forecast.extent import Extent
from pipeline.forecast.forecast import Forecast, OutputSizes, SampleCosts, Workers, forecast, steady_rate
from pipeline.forecast.intervals import student_t
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
GPU = replace(CPU, gpus_per_actor=1.0, device="cuda", n_readers=4)
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


class TestOtherGpus:
    """Predicting for more than the sample was labelled with."""

    def test_twice_the_actors_label_twice_as_fast(self) -> None:
        made = predict(workers=GPU, n_gpus=2)
        assert (made.workers.n_actors, made.images_per_s.value) == (2, pytest.approx(20))

    def test_actors_that_share_a_gpu_are_counted(self) -> None:
        assert predict(workers=replace(GPU, gpus_per_actor=0.25), n_gpus=2).workers.n_actors == 8

    def test_reading_bounds_what_many_do(self) -> None:
        # 4 readers of 10 ms an image.
        made = predict(workers=GPU, n_gpus=100)
        assert made.images_per_s.value == pytest.approx(400)
        assert made.bottleneck == "read"
        assert "read does not keep up with 100 actors" in made.notes

    def test_no_stage_is_said_to_manage_less_than_is_predicted(self) -> None:
        slow = replace(COSTS, seconds_an_image={"read": 0.01, "decode": 0.12, "infer": 0.14, "write": 0.0})
        made = predict(slow, workers=GPU, n_gpus=2)
        assert {stage.stage: round(stage.images_per_s) for stage in made.stages[:3]} == {
            "read": 400,
            "decode": 20,
            "infer": 20,
        }

    def test_from_cpus_nothing_is_said_of_gpus(self) -> None:
        with pytest.raises(TagstreamError, match=r"--gpus 8 predicts from what a GPU does, and the sample .* on cpu"):
            predict(n_gpus=8)


class TestRate:
    """Images a second, and how sure that is."""

    def test_the_first_result_is_not_counted_since_its_work_came_before(self) -> None:
        late = replace(COSTS, arrivals=[(0.0, 1000), *((second, 10) for second in range(1, 11))])
        assert steady_rate(late, EXTENT).value == pytest.approx(10)

    def test_a_sample_that_came_back_in_few_pieces_is_refused(self) -> None:
        with pytest.raises(
            TagstreamError,
            match=r"a sample of 100 images comes back in 3 results, too few .* ask for a larger --sample",
        ):
            steady_rate(replace(COSTS, arrivals=COSTS.arrivals[:3]), EXTENT)

    def test_of_a_source_that_came_back_whole_in_few_pieces_no_larger_sample_is_asked_for(self) -> None:
        heads = [Head(SHARD, 20, 1000, 1000)] * 5
        with pytest.raises(TagstreamError, match=r"the source has only 100 images, which come back in 3 results"):
            steady_rate(replace(COSTS, arrivals=COSTS.arrivals[:3]), replace(EXTENT, n_shards=5, heads=heads))

    def test_shards_that_cost_differently_widen_it_unless_all_were_drawn(self) -> None:
        uneven = replace(COSTS, shard_costs=[(22, seconds) for seconds in (1.0, 2.0, 3.0, 4.0, 5.0)])
        some, everything = steady_rate(uneven, EXTENT), steady_rate(uneven, replace(EXTENT, n_shards=5))
        assert some.high - some.low > 3
        assert everything.high == pytest.approx(everything.low)

    def test_the_interval_holds_the_truth_about_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(0)
        n_hit, n_draws = 0, 400
        for _ in range(n_draws):
            at = np.cumsum(rng.gamma(4.0, 0.025, 61))
            rate = steady_rate(replace(COSTS, arrivals=[(float(second), 1) for second in at]), EXTENT)
            n_hit += rate.low <= 10 <= rate.high
        assert 0.88 <= n_hit / n_draws <= 0.99


# From a table of Student's t.
@pytest.mark.parametrize(("n_free", "expected"), [(3, 3.182), (5, 2.571), (9, 2.262), (30, 2.042), (10_000, 1.960)])
def test_the_quantile_is_that_of_the_table(n_free: int, expected: float) -> None:
    assert student_t(n_free) == pytest.approx(expected, rel=0.01)


def test_a_forecast_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for made in (predict(), predict(usd_per_hour=2.0)):
        path.write_text(made.to_json())
        assert Forecast.read(str(path)) == made


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": 3}', json.dumps({"stages": 1})])
def test_what_is_no_forecast_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(TagstreamError, match=r"plan.json is no forecast .* `tagstream plan --format json` prints"):
        Forecast.read(str(tmp_path / "plan.json"))
