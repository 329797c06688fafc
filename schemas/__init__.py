"""What lands on disk: one pyarrow schema per table, the json records, identities of samples."""

from schemas.identity import content_hash, image_id
from schemas.records import ComparisonSummary, JobRecord, JobSummary, ListRecord, LockRecord, RunRecord
from schemas.tables import (
    FORMER_IMAGES,
    IMAGES,
    LABELLED,
    LABELS,
    LEDGER,
    LISTED,
    READABLE_VERSIONS,
    REJECTED,
    SCHEMA_VERSION,
    SPELLINGS,
)

__all__ = [
    "FORMER_IMAGES",
    "IMAGES",
    "LABELLED",
    "LABELS",
    "LEDGER",
    "LISTED",
    "READABLE_VERSIONS",
    "REJECTED",
    "SCHEMA_VERSION",
    "SPELLINGS",
    "ComparisonSummary",
    "JobRecord",
    "JobSummary",
    "ListRecord",
    "LockRecord",
    "RunRecord",
    "content_hash",
    "image_id",
]
