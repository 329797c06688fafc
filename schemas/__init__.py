"""What lands on disk: one pyarrow schema per table, the json records, identities of samples."""

from schemas.identity import content_hash, image_id
from schemas.records import JobRecord, LockRecord, RunRecord
from schemas.tables import IMAGES, LABELLED, LABELS, REJECTED, SCHEMA_VERSION, SPELLINGS

__all__ = [
    "IMAGES",
    "LABELLED",
    "LABELS",
    "REJECTED",
    "SCHEMA_VERSION",
    "SPELLINGS",
    "JobRecord",
    "LockRecord",
    "RunRecord",
    "content_hash",
    "image_id",
]
