"""What a job has done so far: what is committed, what was rejected, and the seconds that it took."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.actor.rows import JOB_STAGES
from pipeline.cluster.pool import PoolPlan
from pipeline.labelling.committing import Commit
from pipeline.labelling.pending import ShardPlan
from pipeline.labelling.progress import LOADING_MODEL, STARTING_RAY, STARTING_WORKERS, Progress
from pipeline.sources.contents import describe_skipped
from pipeline.text import conceal
from schemas import REJECTED, JobRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class StartedJob:
    """What is known of a job before it labels."""

    run: str
    started: str
    """UTC, ISO 8601: identifies the job in its run."""
    command: str
    """The command line, empty where there is none. It may hold logins."""
    plan: ShardPlan
    pool: PoolPlan
    predicted_s: float
    """Seconds that `tagstream plan` predicted for the job; 0 without a prediction."""
    is_retry: bool
    """Whether the images that it labels had been rejected before."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """How many files of the source are left out, by kind."""
    n_skipped_before: int = 0
    """How many the run's former job left out."""
    sources: Sequence[str] = ()
    """The arguments that led to the source, where they are other ones than those of the run."""


class Tally:
    """Counts what a job commits, and times it from the moment it is made. Several threads may add to it."""

    def __init__(self) -> None:
        self.rejects = RejectTally()
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        of_images = ("images", "labelled", "labels", "flat", "strange", "reused", "near_duplicates")
        self._counts = dict.fromkeys(("shards", *of_images, "shards_listed", "listed"), 0)
        self._n_images_listed = self._n_long = 0
        self._why_copied = ""
        self._seconds = dict.fromkeys(JOB_STAGES, 0.0)

    def add(self, commit: Commit, *, adds_lists: bool = False) -> None:
        """Counts a shard. One that was not written counts for the seconds only.

        Args:
            adds_lists: only listed labels were added to the shard.
        """
        shard = commit.shard
        with self._lock:
            for stage, seconds in {**shard.seconds, "write": commit.seconds}.items():
                self._seconds[stage] += seconds
            self._why_copied = self._why_copied or shard.why_copied or ""
            if adds_lists:
                self._n_images_listed += shard.images.num_rows
            if commit.is_written:
                self._counts["listed"] += sum(rows.num_rows for rows in shard.listed.values() if rows is not None)
            if commit.is_written and adds_lists:
                self._counts["shards_listed"] += 1
            elif commit.is_written:
                self._counts["shards"] += 1
                self._counts["images"] += shard.images.num_rows
                self._counts["labelled"] += shard.n_labelled
                self._counts["labels"] += shard.labels.num_rows
                self._counts["flat"] += shard.n_flat
                self._counts["strange"] += shard.n_strange
                self._counts["reused"] += shard.n_reused
                self._counts["near_duplicates"] += shard.n_near_duplicates
                self._n_long += shard.n_long
                self.rejects.add(shard.images)

    @property
    def counts(self) -> dict[str, int]:
        """What is committed: shards, images, labelled, labels, images that are flat, images strange to the demo model;
        listed labels, and the shards that only got these; images that have the labels of another, of the same content
        or one that looks alike."""
        with self._lock:
            return dict(self._counts)

    @property
    def n_images_done(self) -> int:
        """Images that are committed, and those to which listed labels were added."""
        with self._lock:
            return self._counts["images"] + self._n_images_listed

    @property
    def n_long(self) -> int:
        """Committed images that one square in the middle does not show nearly all of."""
        with self._lock:
            return self._n_long

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job began."""
        return time.perf_counter() - self._started

    def job_record(self, job: StartedJob, progress: Progress, outcome: str, message: str = "") -> JobRecord:
        """The job's record as it is now.

        Args:
            outcome: running, done, failed or interrupted.
            message: the error that ended the job.
        """
        counts, decoding = self.counts, progress.decoding
        return JobRecord(
            run=job.run,
            started=job.started,
            outcome=outcome,
            command=conceal(job.command),
            n_shards_source=job.plan.n_shards,
            n_shards_done_before=job.plan.n_done,
            n_shards_committed=counts["shards"],
            n_shards_changed=len(job.plan.changed),
            n_images=counts["images"],
            n_labelled=counts["labelled"],
            n_rejected=counts["images"] - counts["labelled"],
            n_labels=counts["labels"],
            n_flat=counts["flat"],
            lists=list(job.plan.lists.asked),
            n_shards_listed=counts["shards_listed"],
            n_listed=counts["listed"],
            n_reused=counts["reused"],
            n_near_duplicates=counts["near_duplicates"],
            seconds=round(self.elapsed_s, 3),
            labelling_s=round(progress.labelling_s, 3),
            images_per_s=round(progress.images_per_s, 2),
            seconds_by_stage={stage: round(seconds, 3) for stage, seconds in self._seconds.items()},
            workers={
                "actors": job.pool.n_actors,
                "device": job.pool.device,
                "batch_size": progress.batch_size or job.pool.batch_size,
                **({"decode_in": decoding.place, "decode_reason": decoding.reason} if decoding else {}),
            },
            message=conceal(message),
            n_retried=counts["images"] if job.is_retry else 0,
            predicted_s=round(job.predicted_s, 3),
            n_skipped=sum(job.skipped.values()),
            n_skipped_new=max(0, sum(job.skipped.values()) - job.n_skipped_before),
            skipped=describe_skipped(job.skipped),
            sources=list(job.sources),
            n_strange=counts["strange"],
            why_copied=self._why_copied,
            ray_start_s=round(progress.seconds_of(STARTING_RAY), 3),
            workers_start_s=round(sum(map(progress.seconds_of, (STARTING_WORKERS, LOADING_MODEL))), 3),
        )


class RejectTally:
    """Counts rejected images by class of fault, with an example of each. Its caller keeps threads apart."""

    def __init__(self) -> None:
        self._by_class: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, images: pa.Table) -> None:
        """Counts those of a shard's images that were rejected."""
        rejected = images.filter(pc.equal(images.column("status"), REJECTED))
        columns = ["error", "stage", "shard", "key", "message"]
        for row in rejected.select(columns).to_pylist():
            example = {name: conceal(row[name] or "") for name in columns}
            first = self._by_class.setdefault((row["error"], row["stage"]), {"n_images": 0, **example})
            first["n_images"] += 1

    def most_first(self) -> list[dict[str, Any]]:
        """error, stage, n_images of each class, and shard, key and message of the first image of it that came back."""
        return sorted((dict(found) for found in self._by_class.values()), key=lambda found: -found["n_images"])
