"""What one labelling job is asked for, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.dataflow.labeler import Labeler
from pipeline.labelling.pending import ShardPlan
from pipeline.settings.labelling import LabelSettings
from schemas import JobRecord, RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRequest:
    """One invocation of `tagstream label`."""

    source: str
    store: str
    model: str
    settings: LabelSettings = field(default_factory=LabelSettings)
    run: str | None = None
    """Default: the model's name and the run's fingerprint."""
    address: str | None = None
    """Of a Ray cluster; default this machine, or the cluster whose job this is."""
    verbose: bool = False
    command: str = ""
    lock: bool = False
    """Leave at once where another job holds the run's lock, and hold it."""
    labeler_class: type[Labeler] = Labeler
    predict: Callable[[RunRecord, ShardPlan, int], float] | None = None
    """Predicts the job's seconds from the run, its pending shards and the limit of images (0 for none). Raises
    TagstreamError where the prediction is for another source or other settings."""


@dataclass(frozen=True, slots=True)
class LabelOutcome:
    """What a job did, and what the user should know about it."""

    record: JobRecord
    notes: list[str]
