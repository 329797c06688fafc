"""How many images a GPU labels at once, on a device that is made up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pipeline.actor.batch_size import TO_BE_FOUND, Trial, batch_size_of_job, search_batch_size
from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import PoolPlan, plan_pool
from pipeline.errors import ClusterError
from pipeline.settings.labelling import LabelSettings
from schemas import JobRecord

GIB = 1 << 30
MUCH, LITTLE = 100 * GIB, GIB


@dataclass
class FakeDevice:
    """A device that takes this long to launch a batch, so long for an image, and so much memory."""

    launch_s: float
    image_s: float
    image_bytes: int
    model_bytes: int = 4 * GIB
    memory_bytes: int = 80 * GIB
    tried: list[int] = field(default_factory=list)

    def attempt(self, size: int) -> Trial | None:
        self.tried.append(size)
        peak_bytes = self.model_bytes + size * self.image_bytes
        # As torch tells it: an error that says that memory ran out.
        return None if peak_bytes > self.memory_bytes else Trial(size / self.seconds(size), peak_bytes)

    def seconds(self, size: int) -> float:
        return max(self.launch_s, size * self.image_s)

    def search(self) -> int:
        return search_batch_size(self.attempt, self.memory_bytes)


def test_the_size_is_the_first_from_which_on_a_device_is_hardly_faster() -> None:
    device = FakeDevice(launch_s=0.04, image_s=0.00125, image_bytes=GIB // 8)
    assert device.search() == 32
    assert device.tried == [1, 2, 4, 8, 16, 32, 64], "a size was tried in vain, or twice"


def test_a_small_model_that_waits_for_its_launches_gets_large_batches() -> None:
    assert FakeDevice(launch_s=0.04, image_s=1e-6, image_bytes=GIB // 1024).search() == 512


def test_a_large_one_gets_what_leaves_memory_for_larger_images_and_longer_labels() -> None:
    # 16 images take 48 of 80 GiB, 32 would take 92.
    device = FakeDevice(launch_s=10.0, image_s=0.001, image_bytes=11 * GIB // 4)
    assert device.search() == 16
    assert device.tried == [1, 2, 4, 8, 16, 32]


def test_sizes_that_fit_but_leave_no_memory_are_not_taken() -> None:
    # 16 images take 64 of 80 GiB.
    assert FakeDevice(launch_s=10.0, image_s=0.001, image_bytes=15 * GIB // 4).search() == 8


def test_a_share_of_a_device_is_filled_as_a_device_is() -> None:
    assert FakeDevice(10.0, 0.001, GIB, memory_bytes=80 * GIB).search() == 32
    assert FakeDevice(10.0, 0.001, GIB, memory_bytes=40 * GIB).search() == 16


def test_a_model_that_does_not_fit_stops_the_job_with_a_sentence() -> None:
    with pytest.raises(ClusterError, match=r"one image do not fit 70% of the device's memory .* smaller top_k"):
        FakeDevice(0.04, 0.001, GIB, model_bytes=60 * GIB).search()


@pytest.fixture
def on_gpus() -> PoolPlan:
    return plan_pool([Node(8, 1)], LabelSettings())


def job(**workers: Any) -> JobRecord:
    counts = dict.fromkeys(
        ("n_shards_source", "n_shards_done_before", "n_shards_committed", "n_shards_changed", "n_images"), 0
    )
    more = dict.fromkeys(("n_labelled", "n_rejected", "n_labels", "seconds", "labelling_s", "images_per_s"), 0)
    return JobRecord(run="r", started="", outcome="done", command="", workers=workers, **counts, **more)


def test_it_is_looked_for_where_a_run_begins_with_much_to_label(on_gpus: PoolPlan) -> None:
    assert batch_size_of_job(0, on_gpus, [], MUCH) == TO_BE_FOUND
    assert batch_size_of_job(0, on_gpus, [], None) == TO_BE_FOUND
    assert batch_size_of_job(0, on_gpus, [], LITTLE) == 64
    assert batch_size_of_job(0, replace(on_gpus, in_process=True), [], None) == 64


def test_a_run_on_gpus_goes_on_with_the_batches_that_it_was_labelled_in(on_gpus: PoolPlan) -> None:
    former = [job(device="cuda", batch_size=64), job(device="cuda", batch_size=128), job(device="cpu", batch_size=16)]
    assert batch_size_of_job(0, on_gpus, former, MUCH) == 128
    assert batch_size_of_job(0, on_gpus, former, LITTLE) == 128


@pytest.mark.parametrize(
    "former", [job(device="cuda", batch_size=TO_BE_FOUND), job(device="cpu", batch_size=16), job()]
)
def test_a_job_that_ended_before_the_search_or_labelled_on_cpus_leaves_it_to_the_next(
    on_gpus: PoolPlan, former: JobRecord
) -> None:
    assert batch_size_of_job(0, on_gpus, [former], MUCH) == TO_BE_FOUND


def test_what_the_settings_say_is_taken_and_cpus_have_no_search(on_gpus: PoolPlan) -> None:
    asked = plan_pool([Node(8, 1)], LabelSettings(batch_size=48))
    assert batch_size_of_job(48, asked, [job(device="cuda", batch_size=128)], MUCH) == 48
    on_cpus = plan_pool([Node(8, 0)], LabelSettings())
    assert batch_size_of_job(0, on_cpus, [job(device="cpu", batch_size=8)], MUCH) == 16
