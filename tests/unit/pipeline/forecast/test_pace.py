"""How fast a job labels, by what its devices and its CPUs do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import TagstreamError
from pipeline.estimate import Estimate
from pipeline.forecast.extent import Extent
from pipeline.forecast.pace import Pace, SampleCosts, Workers, find_pace, scale, steady_rate
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
    n_bytes=200_000,
    view_bytes=150_528,
)
# A machine of 16 CPUs: 7 beside the device, 9 free.
GPU = Workers(
    n_actors=1,
    gpus_per_actor=1.0,
    device="cuda",
    batch_size=64,
    n_readers=9,
    n_writers=8,
    cpus_per_actor=7,
    decode_threads=7,
)
READERS = replace(GPU, decode_in="read", n_readers=14, cpus_per_actor=2, decode_threads=2)
PHOTOGRAPHS = replace(
    COSTS, seconds_an_image={"read": 0.002, "decode": 0.08, "infer": 0.002, "write": 0.0}, n_bytes=2e6
)


def pace(
    costs: SampleCosts = COSTS,
    workers: Workers = GPU,
    n_gpus: int = 0,
    decode_in: str = "auto",
    images_per_s: float = 10,
    n_shards: int = 1000,
) -> tuple[Pace, Workers]:
    """The pace of a job, and its workers, where the sample had so many images a second."""
    scaled, _ = scale(workers, n_gpus, costs, decode_in, n_shards)
    return find_pace(Estimate(images_per_s, images_per_s, images_per_s), costs, workers, scaled), scaled


def rates(made: Pace) -> dict[str, int]:
    return {stage.stage: round(stage.images_per_s) for stage in made.stages}


class TestOtherGpus:
    """Predicting for more than the sample was labelled with."""

    def test_twice_the_devices_label_twice_as_fast(self) -> None:
        made, scaled = pace(n_gpus=2)
        assert (scaled.n_actors, made.images_per_s.value, made.bottleneck) == (2, pytest.approx(20), "infer")

    def test_actors_that_share_a_gpu_are_counted(self) -> None:
        assert pace(workers=replace(GPU, gpus_per_actor=0.25), n_gpus=2)[1].n_actors == 8

    def test_they_share_the_cpus_of_now(self) -> None:
        of_16 = [pace(n_gpus=n_gpus)[1] for n_gpus in (1, 2, 7, 15)]
        assert [(workers.cpus_per_actor, workers.n_readers) for workers in of_16] == [(7, 9), (3, 10), (1, 9), (1, 1)]

    def test_decoding_does_not_grow_with_them(self) -> None:
        made, _ = pace(n_gpus=15, decode_in="actor")
        assert (made.images_per_s.value, made.bottleneck) == (pytest.approx(100), "read")
        photographs = replace(PHOTOGRAPHS, seconds_an_image={**PHOTOGRAPHS.seconds_an_image, "infer": 0.05})
        decoding = [pace(photographs, n_gpus=n_gpus, decode_in="actor")[0] for n_gpus in (1, 4, 15)]
        assert [rates(made)["decode"] for made in decoding] == [88, 50, 188]
        assert rates(pace(replace(photographs, reader_s=0.09), READERS, 4)[0])["decode"] == round(12 / 0.09)

    def test_where_they_decode_is_chosen_by_the_rule(self) -> None:
        cheap = replace(PHOTOGRAPHS, seconds_an_image={**PHOTOGRAPHS.seconds_an_image, "decode": 0.001})
        assert [pace(costs, n_gpus=4)[1].decode_in for costs in (PHOTOGRAPHS, cheap)] == ["read", "actor"]
        assert pace(PHOTOGRAPHS, n_gpus=4, decode_in="actor")[1].decode_in == "actor"

    def test_so_it_is_without_more_gpus_unless_the_job_is_done_before_it_knows(self) -> None:
        thumbnails = replace(COSTS, seconds_an_image={"read": 0.001, "decode": 0.001, "infer": 0.002, "write": 0.0})
        begun = replace(GPU, decode_in="read")
        places = [pace(thumbnails, begun, n_shards=n_shards, images_per_s=400)[1].decode_in for n_shards in (32, 33)]
        assert places == ["read", "actor"]

    def test_from_cpus_nothing_is_said_of_gpus(self) -> None:
        with pytest.raises(TagstreamError, match=r"--gpus 8 predicts from what a GPU does, and the sample .* on cpu"):
            pace(workers=replace(GPU, device="cpu"), n_gpus=8)

    def test_the_note_tells_devices_from_cpus(self) -> None:
        _, (note,) = scale(GPU, 4, COSTS, "auto", 1000)
        assert note.endswith("each as fast as one of the 1 that were measured; the 16 CPUs of now read and decode")


class TestReadTasks:
    """Samples that were decoded in the tasks that read them."""

    def test_results_that_come_in_bursts_are_no_measure(self) -> None:
        # 14 CPUs, of which an image holds one for 90 ms.
        made, _ = pace(replace(PHOTOGRAPHS, reader_s=0.09), READERS, images_per_s=400)
        assert (made.images_per_s.value, made.bottleneck) == (pytest.approx(14 / 0.09), "decode")
        assert rates(made)["read"] == rates(made)["decode"] == 156

    def test_readers_that_are_slower_than_their_seconds_say_are_so_in_the_job(self) -> None:
        made, _ = pace(replace(PHOTOGRAPHS, reader_s=0.09), READERS, images_per_s=100)
        assert made.images_per_s.value == pytest.approx(100)

    def test_a_device_that_does_not_keep_up_is_measured(self) -> None:
        slow = replace(PHOTOGRAPHS, reader_s=0.09, seconds_an_image={"read": 0.002, "decode": 0.08, "infer": 0.01})
        made, _ = pace(slow, READERS, images_per_s=90)
        assert (made.images_per_s.value, made.bottleneck, made.notes) == (pytest.approx(90), "infer", [])

    def test_what_would_help_is_said_in_cpus(self) -> None:
        made, _ = pace(replace(PHOTOGRAPHS, reader_s=0.09), READERS, images_per_s=400)
        # 500 images/s by the device, 156 by the CPUs.
        busy = "31 more CPUs would keep them busy, on nodes without GPUs too"
        fast = 'or decoding = "fast" where they are large JPEGs'
        assert made.notes == ["decode does not keep up with 1 actors", f"devices label 500 images/s: {busy}; {fast}"]

    @pytest.mark.parametrize(
        ("decoding", "hint"),
        [("fast", 'or decoding = "faster" where they are large JPEGs'), ("faster", "or smaller images")],
    )
    def test_so_is_decoding_less_of_each(self, decoding: str, hint: str) -> None:
        costs, measured = replace(PHOTOGRAPHS, reader_s=0.09), Estimate(400, 400, 400)
        assert find_pace(measured, costs, READERS, READERS, decoding).notes[-1].endswith(hint)

    def test_small_files_are_packed(self) -> None:
        slow = replace(COSTS, seconds_an_image={"read": 0.2, "decode": 0.001, "infer": 0.002, "write": 0.0})
        made, _ = pace(slow, images_per_s=45)
        assert made.bottleneck == "read"
        assert made.notes[-1].endswith("where images are files of their own, tagstream pack makes shards of them")


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
