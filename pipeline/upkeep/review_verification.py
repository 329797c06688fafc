"""Reads the samples of a run and what people say of them, and tells what is not as it was written.

Nothing of it is repaired by a machine: what people decided cannot be computed anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage.files import read_if_exists, storage_errors
from pipeline.store.ownership import SUFFIX
from pipeline.store.reviews import RunReviews, is_name_of
from pipeline.store.run import Run
from pipeline.text import one_line
from pipeline.upkeep.file_checks import DamagedFileError, check_described, decode_file
from pipeline.upkeep.findings import Finding, Mend
from schemas import DRAWN, REVIEWS, VERDICTS, SampleRecord


def check_reviews(run: Run) -> Iterator[Finding]:
    """What is wrong with the samples and the reviews of a run."""
    yield from _check_samples(run)
    for name in RunReviews(run).review_files():
        path = run.layout.reviews_file(name)
        try:
            _check_reviews(_read(run, path, REVIEWS)[0], name)
        except DamagedFileError as damage:
            yield Finding(damage.kind, run.layout.below(path), str(damage), Mend.IMPORT_AGAIN)


def _check_samples(run: Run) -> Iterator[Finding]:
    kept = RunReviews(run)
    names = sorted({*kept.sample_names(), *(name.removesuffix(SUFFIX) for name in kept.drawn_files())})
    for name in names:
        path = run.layout.sample_record(name)
        record = None
        try:
            record = _read_record(run, path, name)
        except DamagedFileError as damage:
            yield Finding(damage.kind, run.layout.below(path), str(damage), Mend.DRAW_AGAIN)
        path = run.layout.drawn(name)
        try:
            rows, described = _read(run, path, DRAWN)
            _check_drawn(rows, described, name, record)
        except DamagedFileError as damage:
            yield Finding(damage.kind, run.layout.below(path), str(damage), Mend.DRAW_AGAIN)


def _read_record(run: Run, path: str, name: str) -> SampleRecord:
    content = _content(run, path)
    try:
        record = SampleRecord.from_json(content)
    except (ValueError, TypeError) as error:
        raise DamagedFileError("record", f"is no record: {one_line(error)}") from error
    if (record.run, record.sample) != (run.name, name):
        raise DamagedFileError(
            "record", f"is of sample {record.sample} of run {record.run}; expected what its name says"
        )
    return record


def _check_drawn(rows: pa.Table, described: dict[str, str], name: str, record: SampleRecord | None) -> None:
    probability = rows.column("probability").to_numpy()
    told = {described.get("sample"), *pc.unique(rows.column("sample")).to_pylist()}
    if told != {name}:
        raise DamagedFileError("metadata", f"is of the sample {', '.join(sorted(map(str, told)))}; expected {name}")
    if not ((probability > 0) & (probability <= 1)).all():
        raise DamagedFileError("rows", "has probabilities outside 0 to 1")
    if pc.count_distinct(rows.column("image_id")).as_py() != rows.num_rows:
        raise DamagedFileError("rows", "has an image twice")
    if record is not None and rows.num_rows != record.n_drawn:
        raise DamagedFileError("rows", f"has {rows.num_rows:,} images; its record says {record.n_drawn:,}")


def _check_reviews(rows: pa.Table, name: str) -> None:
    strange = set(pc.unique(rows.column("verdict")).to_pylist()) - set(VERDICTS)
    if strange:
        raise DamagedFileError("rows", f"has the verdict {strange.pop()!r}; expected one of {', '.join(VERDICTS)}")
    if not is_name_of(name, rows):
        raise DamagedFileError("rows", "has other reviews than its name says")


def _read(run: Run, path: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, str]]:
    """Rows and metadata of a file. Raises DamagedFileError."""
    rows, described = decode_file(_content(run, path), schema)
    if problem := check_described(described, None):
        raise DamagedFileError("metadata", problem)
    return rows, described


def _content(run: Run, path: str) -> bytes:
    with storage_errors(f"read {path}"):
        content = read_if_exists(run.filesystem, path)
    if content is None:
        folder = PurePosixPath(run.layout.below(path)).parts[0]
        beside = "its images" if folder == "runs" else "its record"
        raise DamagedFileError("missing", f"is missing; expected it beside {beside}")
    return bytes(content)
