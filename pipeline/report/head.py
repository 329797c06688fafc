"""The head of a report: what the run is, what it holds, what it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.catalog.connection import Connection, query_rows
from schemas import JobRecord, RunRecord

_COUNTS = ("n_shards", "n_images", "n_labelled", "n_rejected", "n_labels", "n_unfinished")


def describe_run(
    connection: Connection, record: RunRecord, jobs: Sequence[JobRecord], usd_per_hour: float | None
) -> dict[str, Any]:
    """What the page's head shows.

    Args:
        usd_per_hour: price of all machines of a job together; the cost is that of the jobs' wall clock.
    """
    totals = query_rows(connection, "status", {"run": record.run})
    seconds, labelling_s = sum(job.seconds for job in jobs), sum(job.labelling_s for job in jobs)
    n_images = sum(job.n_images for job in jobs)
    # Of each job it leaves out the images that came first, whose work lies before the time that is measured.
    rate = sum(job.images_per_s * job.labelling_s for job in jobs) / labelling_s if labelling_s else None
    by_stage: Counter[str] = Counter()
    for job in jobs:
        by_stage.update(job.seconds_by_stage)
    counts = {name: int(totals[0][name]) if totals else 0 for name in _COUNTS}
    (shown,) = (row["n_labels"] for row in query_rows(connection, "shown_labels", {"run": record.run}))
    return {
        "run": record.run,
        "created": record.created,
        "source": record.source,
        "model": record.model,
        "modelFingerprint": record.model_fingerprint,
        "fingerprint": record.fingerprint,
        "settings": record.labelling,
        "versions": record.versions,
        "counts": {**counts, "n_labels": shown},
        "jobs": len(jobs),
        "seconds": seconds,
        "predicted": _predicted(jobs),
        "imagesPerSecond": rate,
        "secondsByStage": dict(by_stage),
        "workers": jobs[-1].workers if jobs else {},
        "cost": _cost(seconds, n_images, usd_per_hour),
    }


def _predicted(jobs: Sequence[JobRecord]) -> dict[str, float] | None:
    """What was predicted, beside what those jobs took for which it was."""
    told = [job for job in jobs if job.predicted_s and job.outcome == "done"]
    if not told:
        return None
    return {"predicted": sum(job.predicted_s for job in told), "real": sum(job.seconds for job in told)}


def _cost(seconds: float, n_images: int, usd_per_hour: float | None) -> dict[str, float] | None:
    if usd_per_hour is None or not n_images:
        return None
    usd = seconds / 3600 * usd_per_hour
    return {"usd": usd, "usdPerMillion": usd / n_images * 1e6, "usdPerHour": usd_per_hour}
