"""What a running job tells of itself."""

from __future__ import annotations

import threading

import pytest

from pipeline.labelling import progress as progress_module
from pipeline.labelling.progress import Progress


class Clock:
    """A clock that tests set."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_at_first_nothing_is_known() -> None:
    at = Progress().snapshot()
    assert (at.phase, at.n_images, at.images_per_s, at.eta_s) == ("starting", 0, 0.0, None)


def test_a_phase_keeps_the_number_of_shards() -> None:
    progress = Progress()
    progress.begin("starting Ray", 7)
    progress.begin("loading the model")
    assert (progress.snapshot().phase, progress.snapshot().n_shards) == ("loading the model", 7)


def test_rows_and_shards_are_counted(clock: Clock) -> None:
    progress = Progress()
    progress.begin("starting Ray", 3)
    progress.add_rows(10, 2)
    progress.add_rows(5, 0)
    progress.add_shard(15)
    at = progress.snapshot()
    assert (at.phase, at.n_images, at.n_rejected, at.n_shards_done) == ("labelling", 15, 2, 1)


def test_the_rate_leaves_out_the_first_result_whose_work_came_before_it(clock: Clock) -> None:
    progress = Progress()
    progress.add_rows(100, 0)
    clock.now = 4.0
    progress.add_rows(20, 0)
    assert progress.snapshot().images_per_s == 5.0
    assert progress.labelling_s == 4.0


def test_results_of_a_moment_give_no_rate(clock: Clock) -> None:
    progress = Progress()
    progress.add_rows(100, 0)
    clock.now = 1.9
    progress.add_rows(100, 0)
    assert progress.snapshot().images_per_s == 0.0


def test_every_phase_has_its_seconds(clock: Clock) -> None:
    progress = Progress()
    for now, phase in ((1.0, "listing"), (3.0, "starting Ray"), (6.0, "listing")):
        clock.now = now
        progress.begin(phase)
    clock.now = 10.0
    progress.add_rows(1, 0)
    clock.now = 15.0
    progress.add_rows(1, 0)
    assert [progress.seconds_of(phase) for phase in ("listing", "starting Ray", "labelling", "other")] == [6, 3, 5, 0]
    assert progress.snapshot().phase_s == 5.0


def test_a_single_result_gives_no_rate(clock: Clock) -> None:
    progress = Progress()
    progress.add_rows(100, 0)
    assert (progress.snapshot().images_per_s, progress.labelling_s) == (0.0, 0.0)


def test_the_remaining_time_takes_the_shards_to_come_for_as_large_as_those_done(clock: Clock) -> None:
    progress = Progress()
    progress.begin("starting Ray", 10)
    progress.add_rows(100, 0)
    clock.now = 10.0
    progress.add_rows(100, 0)
    progress.add_shard(100)
    # 10 images/s; 10 shards of 100 less 200 done.
    assert progress.snapshot().eta_s == pytest.approx(80.0)


def test_without_a_shard_that_is_done_the_remaining_time_is_not_known(clock: Clock) -> None:
    progress = Progress()
    progress.begin("starting Ray", 10)
    progress.add_rows(100, 0)
    clock.now = 10.0
    progress.add_rows(100, 0)
    assert progress.snapshot().eta_s is None


def test_the_remaining_time_is_never_below_zero(clock: Clock) -> None:
    progress = Progress()
    progress.begin("starting Ray", 2)
    progress.add_shard(1)
    progress.add_rows(100, 0)
    clock.now = 3.0
    progress.add_rows(100, 0)
    assert progress.snapshot().eta_s == 0.0


def test_threads_count_together() -> None:
    progress = Progress()

    def count() -> None:
        for _ in range(2000):
            progress.add_rows(1, 1)
            progress.add_shard(1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at = progress.snapshot()
    assert (at.n_images, at.n_rejected, at.n_shards_done) == (8000, 8000, 8000)
