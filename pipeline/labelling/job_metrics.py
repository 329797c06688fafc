"""What a labelling job's driver tells Prometheus: samples, rejects, seconds by stage, shards."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.actor.rows import PARTS
from pipeline.labelling.assembly import count_marked
from pipeline.labelling.progress import ProgressSnapshot
from pipeline.metrics import (
    BATCH_SECONDS,
    COMMIT_QUEUE,
    ETA,
    IMAGES,
    NEAR_DUPLICATES,
    REJECTS,
    REUSED,
    SHARDS_OPEN,
    STAGE_SECONDS,
    make_metrics,
)
from schemas import REJECTED

_BATCH_STAGES = ("read", "decode", *PARTS)


class JobMetrics:
    """What the process that runs a job tells."""

    def __init__(self, run: str, job: str) -> None:
        told = (IMAGES, REJECTS, REUSED, NEAR_DUPLICATES, BATCH_SECONDS, STAGE_SECONDS, SHARDS_OPEN, COMMIT_QUEUE, ETA)
        self._metrics = make_metrics(told, run, job)

    def count_rows(self, rows: pa.Table) -> None:
        """Counts samples, rejects and seconds by stage of rows of `pipeline.actor.labeler.LABELLED_ROWS`."""
        self._metrics[IMAGES].inc(rows.num_rows)
        rejected = rows.select(["stage", "error"]).filter(pc.equal(rows.column("status"), REJECTED))
        for reject in rejected.group_by(["stage", "error"]).aggregate([([], "count_all")]).to_pylist():
            tags = {"stage": reject["stage"], "error": reject["error"]}
            self._metrics[REJECTS].inc(reject["count_all"], tags)
        for metric, n_images in zip((REUSED, NEAR_DUPLICATES), count_marked(rows), strict=True):
            if n_images:
                self._metrics[metric].inc(n_images)
        for stage in _BATCH_STAGES:
            # Seconds stand on the first row of each batch.
            seconds = rows.column(f"{stage}_s")
            for batch_s in seconds.filter(pc.greater(seconds, 0)).to_pylist():
                self._count_seconds(stage, batch_s)

    def count_commit(self, seconds: float) -> None:
        """Counts a shard that was written."""
        self._count_seconds("commit", seconds)

    def _count_seconds(self, stage: str, seconds: float) -> None:
        self._metrics[BATCH_SECONDS].observe(seconds, {"stage": stage})
        self._metrics[STAGE_SECONDS].inc(seconds, {"stage": stage})

    def show(self, at: ProgressSnapshot, n_committing: int) -> None:
        """Sets what a job shows of itself at this moment."""
        self._metrics[SHARDS_OPEN].set(at.n_shards - at.n_shards_done)
        self._metrics[COMMIT_QUEUE].set(n_committing)
        if at.eta_s is not None:
            self._metrics[ETA].set(at.eta_s)
