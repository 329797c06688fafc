"""When a job ends though not all is labelled."""

from __future__ import annotations

from pipeline.labelling.time_limit import TimeLimit


def test_a_limit_keeps_time_to_close() -> None:
    limit = TimeLimit(100, "")
    assert [limit.is_over(elapsed_s) for elapsed_s in (94.9, 95.0)] == [False, True]
    assert limit.n_images(images_per_s=2, start_up_s=15) == 160
    assert limit.n_images(images_per_s=2, start_up_s=200) == 0
