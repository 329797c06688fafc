"""Samples of a run that were drawn for review, and the reviews of its images.

Both are only ever added. A sample of one name is there once, and so is what a person says again and again.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import PurePosixPath

import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.storage.files import read_if_exists, storage_errors, write_whole
from pipeline.store.ownership import SUFFIX
from pipeline.store.parquet_file import describe_file, encode_file
from pipeline.store.run import Run
from pipeline.text import one_line
from schemas import DRAWN, REVIEWS, SampleRecord

_RECORD = ".json"


class RunReviews:
    """The samples and reviews of a run, whether it has any or not."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def add_sample(self, record: SampleRecord, drawn: pa.Table) -> bool:
        """Keeps a sample: its images first, its record last. False where the run has it already.

        Args:
            drawn: rows of `schemas.DRAWN`.
        """
        filesystem, layout = self._run.filesystem, self._run.layout
        content = encode_file(drawn.cast(DRAWN), describe_file({"sample": record.sample}))
        with storage_errors(f"write to the store {self._run.store_url}"):
            write_whole(filesystem, layout.drawn(record.sample), content, if_absent=True)
            return write_whole(
                filesystem, layout.sample_record(record.sample), record.to_json().encode(), if_absent=True
            )

    def sample_names(self) -> list[str]:
        """Names of the samples that have a record."""
        layout = self._run.layout
        with storage_errors(f"read the samples of run {self._run.name} in the store {self._run.store_url}"):
            try:
                paths = self._run.filesystem.ls(layout.samples, detail=False)
            except FileNotFoundError:
                return []
        names = (PurePosixPath(path).name for path in paths)
        return sorted(name.removesuffix(_RECORD) for name in names if name.endswith(_RECORD) and name[0] != ".")

    def samples(self) -> list[SampleRecord]:
        """Records of the samples, the oldest first."""
        filesystem, layout = self._run.filesystem, self._run.layout
        records = []
        for name in self.sample_names():
            path = layout.sample_record(name)
            with storage_errors(f"read {path}"):
                content = read_if_exists(filesystem, path)
            try:
                records += [] if content is None else [SampleRecord.from_json(content)]
            except (ValueError, TypeError) as error:
                raise StoreError(f"{path} is damaged: {one_line(error)}; delete it, and draw anew") from error
        return sorted(records, key=lambda record: (record.created, record.sample))

    def add_reviews(self, reviews: pa.Table) -> None:
        """Keeps reviews, in a file that says when.

        Args:
            reviews: rows of `schemas.REVIEWS`.
        """
        rows = _in_order(reviews)
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        with storage_errors(f"write to the store {self._run.store_url}"):
            write_whole(
                self._run.filesystem,
                self._run.layout.reviews_file(f"{now_ms}-{reviews_digest(rows)}{SUFFIX}"),
                encode_file(rows, describe_file({})),
                if_absent=True,
            )

    def drawn_files(self) -> list[str]:
        """Names of the files of drawn images."""
        return sorted(self._run.list_files(self._run.layout.all_drawn))

    def review_files(self) -> list[str]:
        """Names of the files of reviews."""
        return sorted(self._run.list_files(self._run.layout.all_reviews))


def is_name_of(name: str, reviews: pa.Table) -> bool:
    """Whether a file of this name keeps these reviews."""
    return name.rpartition("-")[2] == f"{reviews_digest(reviews)}{SUFFIX}"


def reviews_digest(reviews: pa.Table) -> str:
    """A digest of what reviews say, in whichever order."""
    return hashlib.sha256(str(_in_order(reviews).to_pylist()).encode()).hexdigest()[:16]


def _in_order(reviews: pa.Table) -> pa.Table:
    return reviews.cast(REVIEWS).sort_by([(name, "ascending") for name in REVIEWS.names])
