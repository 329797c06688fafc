"""Where a job decodes."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.actor.rows import FAILED_SHARD
from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.dataflow.decode_place import (
    Choice,
    DecodeCpus,
    ImageWork,
    PlaceOfDecoding,
    actor_rate,
    choose_place,
    first_place,
    read_rate,
)
from pipeline.settings.labelling import LabelSettings

# A photograph of 12 MP for a GPU that labels 640 a second; a thumbnail.
PHOTOGRAPH = ImageWork(read_s=0.002, decode_s=0.08, label_s=1 / 640, n_bytes=2e6, view_bytes=150_528)
THUMBNAIL = ImageWork(read_s=0.0001, decode_s=0.001, label_s=1 / 640, n_bytes=1e4, view_bytes=150_528)
ONE_GPU = DecodeCpus(n_actors=1, of_actor=7, n_free=9, n_elsewhere=0)
WITH_CPU_NODES = replace(ONE_GPU, n_free=73, n_elsewhere=64)


@pytest.mark.parametrize(
    ("work", "cpus", "place"),
    [
        (PHOTOGRAPH, WITH_CPU_NODES, "read"),
        (PHOTOGRAPH, ONE_GPU, "read"),
        (THUMBNAIL, WITH_CPU_NODES, "actor"),
        # A device that is slow enough is fed by its own CPUs.
        (replace(PHOTOGRAPH, label_s=0.1), WITH_CPU_NODES, "actor"),
        # Fewer CPUs are free than the actors have.
        (PHOTOGRAPH, replace(ONE_GPU, n_free=5), "actor"),
        # Whole pictures are larger than their files: they leave their node only for CPUs of others.
        (replace(PHOTOGRAPH, view_bytes=6e6), ONE_GPU, "actor"),
        (replace(PHOTOGRAPH, view_bytes=6e6), WITH_CPU_NODES, "read"),
    ],
)
def test_it_is_where_images_come_sooner_and_travel_small(work: ImageWork, cpus: DecodeCpus, place: str) -> None:
    assert choose_place(work, cpus).place == place


def test_the_choice_tells_its_numbers() -> None:
    assert choose_place(PHOTOGRAPH, WITH_CPU_NODES) == Choice(
        "read", "the 73 free CPUs read and decode 890 images/s, the actors' CPUs decode 88 images/s"
    )
    assert choose_place(THUMBNAIL, ONE_GPU) == Choice(
        "actor", "the actors' CPUs decode 7,000 images/s, their devices label 640"
    )


def test_rates_are_bound_by_devices_and_by_cpus() -> None:
    assert actor_rate(PHOTOGRAPH, ONE_GPU) == pytest.approx(7 / 0.08 / 1.2)
    assert actor_rate(THUMBNAIL, ONE_GPU) == pytest.approx(640)
    assert read_rate(PHOTOGRAPH, ONE_GPU) == pytest.approx(9 / 0.082)
    assert read_rate(PHOTOGRAPH, WITH_CPU_NODES) == pytest.approx(640)


@pytest.mark.parametrize(
    ("cpus", "has_small_views", "place"),
    [(ONE_GPU, True, "read"), (ONE_GPU, False, "actor"), (replace(ONE_GPU, n_free=5), True, "actor")],
)
def test_a_job_begins_where_there_are_more_cpus(cpus: DecodeCpus, has_small_views: bool, place: str) -> None:
    assert first_place(cpus, has_small_views).place == place


@pytest.mark.parametrize("n_cpus", [2, 4, 8, 16, 64])
def test_on_one_machine_without_a_gpu_actors_decode(n_cpus: int) -> None:
    pool = plan_pool([Node(n_cpus, 0)], LabelSettings())
    assert not DecodeCpus.of(pool).are_more_free


def result(n_images: int, infer_s: float, decode_s: float, **changed: Any) -> pa.Table:
    columns = {"index": list(range(n_images)), "read_s": 0.1, "decode_s": decode_s, "infer_s": infer_s}
    return pa.table(
        {
            name: value if isinstance(value, list) else [value] + [0] * (n_images - 1)
            for name, value in {**columns, "n_bytes": 2e6 * n_images, "view_bytes": 1e5 * n_images, **changed}.items()
        }
    )


CHEAP, DEAR = result(64, 0.1, 0.064), result(64, 0.1, 64 * 0.08)


class TestWaves:
    """A choice for each wave of shards."""

    POOL = plan_pool([Node(16, 1)], LabelSettings())

    def test_what_the_settings_say_stands(self) -> None:
        for decode_in in ("actor", "read"):
            place = PlaceOfDecoding(decode_in, self.POOL, has_small_views=True)
            list(place.watch([DEAR] * 5))
            assert place.choose() == Choice(decode_in, "")  # type: ignore[arg-type]
            assert place.most_shards() == sys.maxsize

    def test_a_job_in_its_own_process_decodes_there(self) -> None:
        place = PlaceOfDecoding("read", replace(self.POOL, in_process=True), has_small_views=True)
        assert place.choose() == Choice("actor", "the job labels in its own process")

    def test_where_actors_have_more_cpus_nothing_has_to_be_measured(self) -> None:
        place = PlaceOfDecoding("auto", plan_pool([Node(8, 0)], LabelSettings()), has_small_views=True)
        list(place.watch([DEAR] * 5))
        assert (place.choose().place, place.most_shards()) == ("actor", sys.maxsize)

    def test_it_is_chosen_anew_from_what_was_labelled_before(self) -> None:
        place = PlaceOfDecoding("auto", self.POOL, has_small_views=True)
        assert place.choose().reason == "9 CPUs are free, the actors have 7 CPUs to decode with"
        assert list(place.watch([CHEAP] * 5)) == [CHEAP] * 5
        assert place.choose().place == "actor"
        list(place.watch([DEAR] * 5))
        assert place.choose().place == "read"
        # Nothing new.
        assert place.choose().place == "read"

    def test_waves_are_short_until_so_much_is_known(self) -> None:
        place = PlaceOfDecoding("auto", self.POOL, has_small_views=True)
        list(place.watch([CHEAP] * 4))
        assert (place.choose().place, place.most_shards()) == ("read", 16)
        list(place.watch([CHEAP]))
        assert (place.choose().place, place.most_shards()) == ("actor", sys.maxsize)

    def test_a_device_that_is_slow_only_at_first_is_not_taken_for_slow(self) -> None:
        place = PlaceOfDecoding("auto", self.POOL, has_small_views=True)
        list(place.watch([result(64, 60.0, 64 * 0.08), *[DEAR] * 4]))
        assert (place.choose().place, place.most_shards()) == ("read", sys.maxsize)

    def test_shards_that_cannot_be_read_tell_nothing(self) -> None:
        place = PlaceOfDecoding("auto", self.POOL, has_small_views=True)
        failed = result(1, None, None, index=[FAILED_SHARD], n_bytes=None, view_bytes=None)  # type: ignore[arg-type]
        list(place.watch([failed] * 9))
        assert (place.choose().place, place.most_shards()) == ("read", 16)
