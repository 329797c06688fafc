"""What a command did, for programs that look after it: a record, and the file that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jobs.closing.outcome import Outcome
from jobs.console.drift_table import plain_drift
from pipeline.analysis.comparison import Comparison
from pipeline.analysis.drift import Drift
from pipeline.storage.files import open_filesystem, storage_errors, write_whole
from pipeline.text import conceal
from schemas import ComparisonSummary, DriftSummary, JobSummary

if TYPE_CHECKING:
    # Brings in Ray, which takes seconds to import.
    from pipeline.labelling.job import LabelJob


@dataclass(slots=True)
class PendingJob:
    """What is known of a labelling job before it exists, and the job as soon as it does."""

    verb: str
    source: str
    store: str
    job: LabelJob | None = None
    """None until the job's settings have been read; it stays None where they are wrong."""

    def summarize(self, outcome: Outcome) -> JobSummary:
        """The summary of the job, however far it came."""
        known: dict[str, Any] = {
            "verb": self.verb,
            "store": conceal(self.store),
            "outcome": outcome.state,
            "exit_code": outcome.exit_code,
            "message": conceal(outcome.message),
            "alarms": outcome.alarms,
        }
        if self.job is None:
            return JobSummary(**known, source=conceal(self.source))
        return _summarize(self.job, known)


def _summarize(job: LabelJob, known: dict[str, Any]) -> JobSummary:
    plan, counts = job.shard_plan, job.counts
    if known["outcome"] == "done" and plan is not None and not plan.pending and not plan.lists.shards:
        known = {**known, "outcome": "nothing_to_do"}
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
        n_shards_open=max(0, len(plan.pending) - job.progress.n_shards_done) if plan else 0,
        n_images=counts["images"],
        n_labelled=counts["labelled"],
        n_rejected=n_rejected,
        n_labels=counts["labels"],
        n_skipped=sum(job.skipped.values()),
        n_skipped_new=max(0, sum(job.skipped.values()) - job.n_skipped_before),
        skipped=job.skipped,
        n_flat=counts["flat"],
        n_shards_listed=counts["shards_listed"],
        n_listed=counts["listed"],
        n_reused=counts["reused"],
        n_near_duplicates=counts["near_duplicates"],
        reject_rate=n_rejected / counts["images"] if counts["images"] else 0.0,
        seconds=round(job.elapsed_s, 3),
        images_per_s=round(job.progress.images_per_s, 2),
        rejects=job.rejects.most_first(),
    )


def summarize_comparison(
    store: str, runs: tuple[str, str], comparison: Comparison | None, outcome: Outcome, drift: Drift | None = None
) -> ComparisonSummary:
    """The summary of `tagstream compare`.

    Args:
        store: directory or URL.
        runs: the names of run A and run B.
        comparison: what was found; None where the command failed before.
        outcome: how the command ended.
        drift: what the drift tests found; None where they were not asked for.
    """
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
        outcome=outcome.state,
        exit_code=outcome.exit_code,
        message=conceal(outcome.message),
        alarms=outcome.alarms,
        drift={} if drift is None else plain_drift(drift),
        **found,
    )


def summarize_drift(store: str, since: str, runs: Sequence[str], drift: Drift | None, outcome: Outcome) -> DriftSummary:
    """The summary of `tagstream status --since`.

    Args:
        store: directory or URL.
        since: as it was given.
        runs: names of the runs that were looked at.
        drift: what was found; None where the command failed before.
        outcome: how the command ended.
    """
    return DriftSummary(
        store=conceal(store),
        since=since,
        runs=list(runs),
        outcome=outcome.state,
        exit_code=outcome.exit_code,
        message=conceal(outcome.message),
        alarms=outcome.alarms,
        **({} if drift is None else plain_drift(drift)),
    )


def write_summary(url: str, summary: JobSummary | ComparisonSummary | DriftSummary) -> None:
    """Writes a summary as JSON to a path or s3:// URL, over whatever is there. Raises StorageError where that fails."""
    with storage_errors(f"write the summary {conceal(url)}"):
        filesystem, path = open_filesystem(url)
        write_whole(filesystem, path, summary.to_json().encode())
