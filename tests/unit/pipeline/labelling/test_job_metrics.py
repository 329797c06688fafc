"""What a job counts for Prometheus of the rows that come back."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.actor.rows import LABELLED_ROWS
from pipeline.labelling import job_metrics
from pipeline.labelling.job_metrics import JobMetrics
from pipeline.metrics import IMAGES, REUSED
from schemas import LABELLED


class Counter:
    """Counts; Ray's own shows nothing to this process."""

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        self.value += value


@pytest.mark.parametrize("known", [[None, None, None], [0, None, 4]])
def test_images_that_get_the_labels_of_others_are_counted_among_all(monkeypatch: pytest.MonkeyPatch, known) -> None:
    counters = {IMAGES: Counter(), REUSED: Counter()}
    monkeypatch.setattr(job_metrics, "make_metrics", lambda *_: counters)
    told = {"status": [LABELLED] * 3, "known_shard": known}
    columns = [pa.array(told.get(field.name, [None] * 3), field.type) for field in LABELLED_ROWS]
    JobMetrics("run", "job").count_rows(pa.Table.from_arrays(columns, schema=LABELLED_ROWS))
    assert (counters[IMAGES].value, counters[REUSED].value) == (3, sum(place is not None for place in known))
