"""The json records beside the tables: what makes a run, and what each job did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import pyarrow as pa

from schemas.tables import FORMER_IMAGES, IMAGES, IMAGES_OF_HASHES, IMAGES_OF_REUSE


class _JsonRecord:
    """A dataclass that is written as one json object."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads a record; fields that a newer version added are left out. Raises ValueError or TypeError for others."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"holds a {type(values).__name__}; expected an object")
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord(_JsonRecord):
    """`runs/<run>/run.json`: what makes the run. Written once; a run never changes what it is."""

    run: str
    schema_version: int
    created: str
    """When the run was made: UTC, ISO 8601."""
    source: str
    """The source as it was given, local paths absolute, logins concealed."""
    source_root: str
    """What shard names are relative to. A run holds one root, so that a shard's name means one shard."""
    folder_buckets: int
    """How many shards a folder of images is cut into; 0 for sources that come in shards."""
    model: str
    """Absolute local folder, `org/name@commit` of the hub, or URL. Runs of former versions have `org/name`."""
    model_fingerprint: str
    fingerprint: str
    """Hash of model_fingerprint, preprocessing and `labelling`: what decides the labels."""
    labelling: dict[str, Any]
    """The settings that decide the labels: top_k, ranking, sampling, max_label_tokens, dtype, honour_exif,
    pixel_rule and decoding (the former ones where they are left out), views (1, the centre, where it is left out),
    where image tokens were merged image_tokens or view_tokens (how many were kept) and token_merging (the method), and
    where images that look alike are labelled once skip_near_duplicates and near_distance."""
    versions: dict[str, str]
    sources: list[str] = field(default_factory=list)
    """All arguments of a source that was given by several, as `source` has a single one."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns of Parquet files that were asked for: image, key, caption, label."""
    reuses: bool = False
    """Whether images of one content are labelled once. The run's images have the columns `reused_from` and `reused_run`
    then."""
    perceptual_hash: bool = False
    """Whether the run's images have a hash of what they look like: the columns `phash` and `reused_distance`."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The arguments that lead to the source."""
        return tuple(self.sources) or (self.source,)

    @property
    def tells_flat(self) -> bool:
        """Whether the run's images have the column `flat`: those of runs with the former rule of pixels have not."""
        return "pixel_rule" in self.labelling

    @property
    def images_schema(self) -> pa.Schema:
        """The columns of the run's images."""
        if self.perceptual_hash:
            return IMAGES_OF_HASHES
        if self.reuses:
            return IMAGES_OF_REUSE
        return IMAGES if self.tells_flat else FORMER_IMAGES

    @property
    def tells_views(self) -> bool:
        """Whether the run's labels have the column `view`: those of runs that see the centre alone have not."""
        return "views" in self.labelling


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord(_JsonRecord):
    """`runs/<run>/jobs/<utc-time>.json`: one invocation of `tagstream label`."""

    run: str
    started: str
    """When the job began: UTC, ISO 8601."""
    outcome: str
    """running, done, failed or interrupted. A job that was killed leaves `running` behind."""
    command: str
    n_shards_source: int
    n_shards_done_before: int
    n_shards_committed: int
    n_shards_changed: int
    """Shards that changed at the source after they had been committed."""
    n_images: int
    n_labelled: int
    n_rejected: int
    n_labels: int
    seconds: float
    """Wall clock of the job in seconds, start of Ray and loading of the model included."""
    labelling_s: float
    """Seconds from the first to the last result."""
    images_per_s: float
    """Images a second over `labelling_s`; 0 where that is less than two seconds, which tell nothing."""
    seconds_by_stage: dict[str, float] = field(default_factory=dict)
    """Busy seconds of all workers together: read, decode, infer, write."""
    workers: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    predicted_s: float = 0.0
    """What `tagstream plan` had predicted for `seconds`; 0 where it was not asked."""
    n_retried: int = 0
    """How many of the images had been rejected before, and were tried again."""
    n_skipped: int = 0
    """How many files of the source are no images, and were left out."""
    n_skipped_new: int = 0
    """How many more these are than those of the run's former job."""
    skipped: str = ""
    """The kinds of these files: `12 .mp4, 1 link`."""
    sources: list[str] = field(default_factory=list)
    """The arguments that led to the source, where they are other ones than those of the run."""
    n_flat: int = 0
    """How many of the labelled images showed the model one colour alone."""
    ray_start_s: float = 0.0
    """Seconds until Ray had started or was joined."""
    workers_start_s: float = 0.0
    """Seconds from then to the first result: workers start and load the model."""
    n_strange: int = 0
    """How many of the images do not look like the scenes that the demo model knows; 0 for every other model."""
    why_copied: str = ""
    """Why each branch of a model of the hub had a copy of its image's tokens; empty where branches shared them."""
    lists: list[str] = field(default_factory=list)
    """Versions of the lists of names that were scored."""
    n_shards_listed: int = 0
    """Shards, labelled before, whose listed labels were added."""
    n_listed: int = 0
    """Listed labels that were written."""
    n_reused: int = 0
    """How many of the labelled images got the labels of an image of the same content."""
    n_near_duplicates: int = 0
    """How many of the labelled images got the labels of an image that looks alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListRecord(_JsonRecord):
    """`runs/<run>/lists/<version>.json`: a list of names whose scores the run keeps. A changed list is another one."""

    run: str
    version: str
    """The title with a digest of all that decides the listed labels: `animals-1a2b3c4d`."""
    created: str
    """When the list came to the run: UTC, ISO 8601."""
    title: str
    names: dict[str, list[str]]
    """Spellings of each name, the name itself included; their probabilities are summed."""
    top: int
    """How many names an image keeps, the most probable ones; 0 keeps any number."""
    min_score: float
    """The lowest score that is kept, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRecord(_JsonRecord):
    """`runs/<run>/samples/<sample>.json`: how images of a run were drawn for review."""

    run: str
    sample: str
    """The way of drawing with a digest of all that decides which images are drawn: `random-1a2b3c4d`."""
    created: str
    """When it was drawn: UTC, ISO 8601."""
    drawn_by: str
    """random, uncertain, disagreement or rare."""
    n: int
    """How many images were asked for: the expected number, since each image is drawn by itself."""
    n_drawn: int
    n_images: int
    """Labelled images of the run, of which they were drawn."""
    seed: int
    against: str = ""
    """The other run, where images were drawn by disagreement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LockRecord(_JsonRecord):
    """`runs/<run>/lock-<n>.json`: the job that holds the run. It goes with the job, or expires unrenewed."""

    run: str
    token: str
    """Random text that only this holder knows as its own."""
    host: str
    pid: int
    since: str
    """When the lock was taken: UTC, ISO 8601, by the clock of its host."""
    lease_s: float
    """Seconds after which a lock has expired that was not written again, by the storage's clock."""
    expires: str = ""
    """When the lease ends by the clock of its host: UTC, ISO 8601."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSummary(_JsonRecord):
    """What `--summary` and `--notify` of `tagstream label` and `retry` give: one invocation, whatever became of it.

    Fields of a job that ended before they were known are empty or 0. The fields are described in schemas/README.md.
    """

    verb: str
    store: str
    source: str = ""
    run: str = ""
    started: str = ""
    outcome: str
    exit_code: int | None
    message: str
    alarms: list[str]
    notes: list[str] = field(default_factory=list)
    n_shards_source: int = 0
    n_shards_new: int = 0
    n_shards_changed: int = 0
    n_shards_missing: int = 0
    n_shards_committed: int = 0
    n_shards_open: int = 0
    n_images: int = 0
    n_labelled: int = 0
    n_rejected: int = 0
    n_labels: int = 0
    n_skipped: int = 0
    n_skipped_new: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    n_flat: int = 0
    n_shards_listed: int = 0
    n_listed: int = 0
    n_reused: int = 0
    n_near_duplicates: int = 0
    reject_rate: float = 0.0
    seconds: float = 0.0
    images_per_s: float = 0.0
    rejects: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonSummary(_JsonRecord):
    """What `--summary` and `--notify` of `tagstream compare` give; the fields are described in schemas/README.md."""

    verb: str = "compare"
    store: str
    run_a: str
    run_b: str
    outcome: str
    exit_code: int | None
    message: str
    alarms: list[str]
    k: int = 0
    n_paired: int = 0
    n_judged: int = 0
    reject_rate_difference: float | None = None
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftSummary(_JsonRecord):
    """What `--summary` and `--notify` of `tagstream status --since` give; described in schemas/README.md."""

    verb: str = "status"
    store: str
    since: str
    runs: list[str]
    outcome: str
    exit_code: int | None
    message: str
    alarms: list[str]
    n_shards_before: int = 0
    n_shards_since: int = 0
    n_images_before: int = 0
    n_images_since: int = 0
    is_telling: bool = False
    tests: list[dict[str, Any]] = field(default_factory=list)
    names: list[dict[str, Any]] = field(default_factory=list)
