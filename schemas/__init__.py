"""What lands on disk: one pyarrow schema per table, the json records, identities of samples."""

from schemas.identity import content_hash, image_id
from schemas.records import ComparisonSummary, JobRecord, JobSummary, ListRecord, LockRecord, RunRecord, SampleRecord
from schemas.tables import (
    DRAWN,
    FORMER_IMAGES,
    IMAGES,
    LABELLED,
    LABELS,
    LABELS_OF_VIEWS,
    LEDGER,
    LISTED,
    READABLE_VERSIONS,
    REJECTED,
    REVIEWS,
    SCHEMA_VERSION,
    SPELLINGS,
    VERDICTS,
)

__all__ = [
    "DRAWN",
    "FORMER_IMAGES",
    "IMAGES",
    "LABELLED",
    "LABELS",
    "LABELS_OF_VIEWS",
    "LEDGER",
    "LISTED",
    "READABLE_VERSIONS",
    "REJECTED",
    "REVIEWS",
    "SCHEMA_VERSION",
    "SPELLINGS",
    "VERDICTS",
    "ComparisonSummary",
    "JobRecord",
    "JobSummary",
    "ListRecord",
    "LockRecord",
    "RunRecord",
    "SampleRecord",
    "content_hash",
    "image_id",
]
