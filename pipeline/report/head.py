"""The head of a report: what the run is, what it holds, what it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from model.demo_scenes import describe_strangers
from pipeline.catalog.connection import Connection, query_rows
from pipeline.catalog.label_choice import label_kinds
from pipeline.storage.model_cache import model_name
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
    seconds = sum(job.seconds for job in jobs)
    # Of each job the rate leaves out the images that came first, whose work lies before the time that is measured. Jobs
    # too short for a rate have none.
    timed = [job for job in jobs if job.images_per_s]
    labelling_s = sum(job.labelling_s for job in timed)
    rate = sum(job.images_per_s * job.labelling_s for job in timed) / labelling_s if labelling_s else None
    by_stage: Counter[str] = Counter()
    for job in jobs:
        by_stage.update(job.seconds_by_stage)
    counts = {name: int(totals[0][name]) if totals else 0 for name in _COUNTS}
    (shown,) = (row["n_labels"] for row in query_rows(connection, "shown_labels", {"run": record.run}))
    of_list = {row["run"]: row["list"] for row in query_rows(connection, "chosen_lists", {})}.get(record.run)
    shown_labels = {"labels": label_kinds(connection), "list": of_list} if of_list is not None else {}
    return {
        "run": record.run,
        "created": record.created,
        "source": record.source,
        "skipped": jobs[-1].skipped if jobs else "",
        "title": _title(record),
        "note": describe_strangers(sum(job.n_strange for job in jobs), sum(job.n_labelled for job in jobs)),
        "model": record.model,
        "modelFingerprint": record.model_fingerprint,
        "fingerprint": record.fingerprint,
        "settings": {**record.labelling, **shown_labels},
        "versions": record.versions,
        "counts": {**counts, "n_labels": shown},
        "jobs": len(jobs),
        "seconds": seconds,
        "predicted": _predicted(jobs),
        "imagesPerSecond": rate,
        "secondsByStage": dict(by_stage),
        "workers": jobs[-1].workers if jobs else {},
        "cost": _cost(seconds, rate, usd_per_hour),
    }


def _title(record: RunRecord) -> str:
    """What the report is about, for people: the source and the model, each without the folders in front of it."""
    source = [part for part in record.source.split("/") if part]
    return f"{source[-1] if source else record.source}, labelled by {model_name(record.model)}"


def _predicted(jobs: Sequence[JobRecord]) -> dict[str, float] | None:
    """What was predicted, beside what those jobs took for which it was."""
    told = [job for job in jobs if job.predicted_s and job.outcome == "done"]
    if not told:
        return None
    return {"predicted": sum(job.predicted_s for job in told), "real": sum(job.seconds for job in told)}


def _cost(seconds: float, images_per_s: float | None, usd_per_hour: float | None) -> dict[str, float | None] | None:
    """What the jobs cost together, and what a million images cost at the rate that is shown, without starting up."""
    if usd_per_hour is None:
        return None
    usd_per_s = usd_per_hour / 3600
    a_million = 1e6 / images_per_s * usd_per_s if images_per_s else None
    return {"usd": seconds * usd_per_s, "usdPerMillion": a_million, "usdPerHour": usd_per_hour}
