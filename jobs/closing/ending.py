"""What a command did, for machines that look after it: a record built whatever became of it, and its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.analysis.comparison import Comparison
from pipeline.storage.files import open_filesystem, storage_errors, write_whole
from pipeline.text import conceal
from schemas import ComparisonSummary, JobSummary

if TYPE_CHECKING:
    from pipeline.labelling.job import LabelJob


@dataclass(slots=True)
class Ending:
    """How a command ended, as far as it has."""

    outcome: str = "running"
    exit_code: int | None = None
    message: str = ""
    alarms: list[str] = field(default_factory=list)


def summarize_job(verb: str, source: str, store: str, job: LabelJob | None, ending: Ending) -> JobSummary:
    """The summary of a labelling job; None stands for one that could not be asked for, its settings being wrong."""
    known: dict[str, Any] = {
        "verb": verb,
        "store": conceal(store),
        "outcome": ending.outcome,
        "exit_code": ending.exit_code,
        "message": conceal(ending.message),
        "alarms": ending.alarms,
    }
    if job is None:
        return JobSummary(**known, source=conceal(source))
    plan, counts = job.shard_plan, job.counts
    if ending.outcome == "done" and plan is not None and not plan.pending:
        known["outcome"] = "nothing_to_do"
    n_rejected = counts["images"] - counts["labelled"]
    return JobSummary(
        **known,
        source=job.source,
        run=job.run_name,
        started=job.started_at,
        notes=[conceal(note) for note in job.notes],
        n_shards_source=plan.n_shards if plan else 0,
        n_shards_new=len(plan.pending) - len(plan.replaced) if plan else 0,
        n_shards_changed=len(plan.changed) if plan else 0,
        n_shards_missing=plan.n_missing if plan else 0,
        n_shards_committed=counts["shards"],
        n_shards_open=len(plan.pending) - job.progress.n_shards_done if plan else 0,
        n_images=counts["images"],
        n_labelled=counts["labelled"],
        n_rejected=n_rejected,
        n_labels=counts["labels"],
        reject_rate=n_rejected / counts["images"] if counts["images"] else 0.0,
        seconds=round(job.elapsed_s, 3),
        images_per_s=round(job.progress.images_per_s, 2),
        rejects=job.rejects.most_first(),
    )


def summarize_comparison(
    store: str, runs: tuple[str, str], comparison: Comparison | None, ending: Ending
) -> ComparisonSummary:
    """The summary of a comparison of two runs; None stands for one that failed."""
    found: dict[str, Any] = (
        {}
        if comparison is None
        else {
            "k": comparison.k,
            "n_paired": comparison.n_paired,
            "n_judged": comparison.n_judged,
            "reject_rate_difference": comparison.reject_rate_difference,
            "differences": {name: asdict(difference) for name, difference in comparison.differences.items()},
        }
    )
    return ComparisonSummary(
        store=conceal(store),
        run_a=runs[0],
        run_b=runs[1],
        outcome=ending.outcome,
        exit_code=ending.exit_code,
        message=conceal(ending.message),
        alarms=ending.alarms,
        **found,
    )


def write_summary(url: str, summary: JobSummary | ComparisonSummary) -> None:
    """Writes a summary, local or on an object store, over a former one. Raises StorageError where that fails."""
    with storage_errors(f"write the summary {conceal(url)}"):
        filesystem, path = open_filesystem(url)
        write_whole(filesystem, path, summary.to_json().encode())
