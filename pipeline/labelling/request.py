"""What one labelling job is asked for, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.actor.labeler import Labeler
from pipeline.labelling.pending import ShardPlan
from pipeline.labelling.time_limit import TimeLimit
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.shard import ColumnNames
from schemas import JobRecord, RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRequest:
    """One invocation of `tagstream label`."""

    source: str | tuple[str, ...]
    """Directory, glob, pattern, `@list`, file or URL of the images, or several of them."""
    store: str
    """Local folder or URL of the store."""
    model: str
    """Local folder, `org/name` or `org/name@revision` of the hub, or URL of the model, or `demo`."""
    settings: LabelSettings = field(default_factory=LabelSettings)
    columns: ColumnNames = field(default_factory=ColumnNames)
    """What the columns of Parquet files are, where that is asked for."""
    run: str | None = None
    """Name of the run; the default is made of the model's name and the run's fingerprint."""
    address: str | None = None
    """Address of a Ray cluster, or `local` for a Ray on this machine. The default is the cluster that runs this process
    as its job, or else this machine, where small jobs do without Ray (`pipeline.cluster.small_jobs`)."""
    verbose: bool = False
    """Show Ray's own log."""
    command: str = ""
    """The command line, for the job's record; the default is for jobs that no command line asked for."""
    lists: tuple[NameList, ...] = ()
    """Lists of names that every image gets scores for, beside its labels."""
    lock: bool = False
    """Hold the run's lock, and end at once where another job holds it; by default jobs may share a run."""
    time_limit: TimeLimit | None = None
    """When the job ends though not all is labelled. It is looked at with every batch that comes back."""
    labeler_class: type[Labeler] = Labeler
    """Class of the labelling actors."""
    predict: Callable[[RunRecord, ShardPlan, int], float] | None = None
    """Predicts the job's seconds from the run, its pending shards and the limit of images (0 for none). Raises
    TagstreamError where the prediction is for another source or other settings."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The arguments that make the source."""
        return (self.source,) if isinstance(self.source, str) else self.source


@dataclass(frozen=True, slots=True)
class LabelOutcome:
    """What a job did, and what the user should know about it."""

    record: JobRecord
    """The job's last record, as the store has it."""
    notes: list[str]
    """Sentences for the user."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many files of the source were left out, by kind; most first."""
    alarm: str = ""
    """The limit of time that ended the job before all was labelled; empty where none did."""
