"""What a labelling job is assigned: which images it labels, and what it commits of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.cluster.pool import PoolPlan
from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.pending import ShardPlan, plan_shards
from pipeline.labelling.progress import Progress
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.shard import Source, add_sizes
from pipeline.store.ownership import CommittedShard
from pipeline.store.run import Run
from schemas import RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenJob:
    """What a job works with once its run is open."""

    run: Run
    record: RunRecord
    """What the run is made of."""
    source: Source
    """The source, of the kind that the run began with."""
    sources: Sequence[str]
    """The arguments that lead to the source, as records name them."""
    settings: LabelSettings
    pool: PoolPlan
    progress: Progress
    lists: tuple[NameList, ...] = ()
    """Lists of names that every image gets scores for."""
    notes: list[str]
    """Sentences for the user, shown at the job's end. Threads may append to it."""


class Assignment:
    """Every shard that is not committed, whole. Other assignments override some of these methods."""

    is_retry = False
    """Whether the images to label had been rejected before."""

    def fit_pool(self, pool: PoolPlan) -> PoolPlan:
        """The pool to label with, made of the one that the settings lead to."""
        return pool

    def plan(self, job: OpenJob) -> ShardPlan:
        """The shards to label. Raises SourceError where the source does not fit the run, as `plan_shards` does."""
        policy = job.settings.changed
        lists = [of_list.version for of_list in job.lists]
        plan = plan_shards(job.run, job.source, job.record.folder_buckets, policy, lists)
        job.notes.extend(_changed_notes(plan, policy))
        job.notes.extend(_left_lists_notes(plan))
        return plan

    def n_bytes(self, plan: ShardPlan) -> int | None:
        """Size of what is to be labelled, by which a job is small or not; None where the source does not say."""
        return add_sizes([*plan.pending, *plan.lists.shards])

    def on_rows(self, rows: pa.Table) -> None:
        """Called with rows of `pipeline.actor.rows.LABELLED_ROWS` as soon as they come back from the pool."""

    def complete(self, job: OpenJob, shard: WholeShard, former: CommittedShard | None) -> WholeShard | None:
        """What is committed of a shard whose rows came back; None leaves the store as it is.

        Called in several threads at a time.

        Args:
            former: the shard's commit that this one replaces, if it is labelled again.
        """
        return shard


def _changed_notes(plan: ShardPlan, policy: str) -> list[str]:
    if not plan.changed:
        return []
    listed = ", ".join(shard.name for shard in plan.changed[:5]) + (", ..." if len(plan.changed) > 5 else "")
    done = "they are labelled again" if policy == "relabel" else "their labels are kept; --changed relabel renews them"
    return [f"{len(plan.changed)} shards changed at the source after they were committed ({listed}); {done}"]


def _left_lists_notes(plan: ShardPlan) -> list[str]:
    """What becomes of the run's lists that the job does not score."""
    left = sorted(plan.lists.known - set(plan.lists.asked))
    if not left or not plan.pending:
        return []
    return [
        f"the {len(plan.pending)} shards of this job get no scores for the run's lists of names ({', '.join(left)}); "
        "label with --names adds them"
    ]
