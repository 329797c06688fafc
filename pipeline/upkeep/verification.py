"""Reads everything that a run keeps in the store, and tells what is not as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from model.choices import RANKINGS
from pipeline.errors import StoreError
from pipeline.storage.files import read_if_exists, storage_errors
from pipeline.store.layout import RunLayout
from pipeline.store.ledger import count_rows, counted_columns, find_damaged_parts, read_ledger
from pipeline.store.ownership import is_compacted, read_held, shard_stem, split_file_name
from pipeline.store.run import Run
from pipeline.store.run_files import RunFiles, list_run_files
from pipeline.store.store import Store
from pipeline.text import one_line
from pipeline.upkeep.file_checks import DamagedFileError, check_described, check_rows, decode_file
from pipeline.upkeep.findings import Finding, Mend, Verification
from pipeline.upkeep.leftovers import Leftover, find_leftovers
from pipeline.upkeep.list_verification import ListsCheck
from pipeline.upkeep.review_verification import check_reviews
from schemas import IMAGES, IMAGES_OF_HASHES, LABELS, READABLE_VERSIONS, SPELLINGS, JobRecord, RunRecord

_N_READERS = 16
# Larger files are read one after the other: rows take ten times the room of the file.
_SMALL_BYTES = 2 << 20
_VERSION_KEYS = ("source_size", "source_etag")


def runs_to_verify(store: Store) -> list[str]:
    """Runs that the store has anything of, even where their record is lost."""
    names = set(store.run_names())
    for table in ("images", "labels"):
        with storage_errors(f"read the store {store.url}"):
            try:
                listed = store.filesystem.ls(store.layout.table(table), detail=False)
            except FileNotFoundError:
                continue
        folders = (path.rstrip("/").rsplit("/", 1)[-1] for path in listed)
        names |= {folder.removeprefix("run=") for folder in folders if folder.startswith("run=")}
    return sorted(names)


def verify_run(run: Run, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Verification:
    """Reads all files of a run, few at once.

    Args:
        on_progress: is told how many files of images of how many have been read, each with its labels.

    Raises StoreError where the storage fails: that is no finding.
    """
    result = Verification(run.name)
    record, jobs = _check_records(run, result)
    files = list_run_files(run)
    check = _FileCheck(run, record, files)
    names = [*files.committed.files, *files.unreadable]
    result.findings += _damaged_parts(run)
    lists = ListsCheck(run, record.fingerprint if record else None, files.committed)
    n_files = len(names) + lists.n_files
    small = [name for name in names if files.size_bytes(name) <= _SMALL_BYTES]
    large = sorted(set(names) - set(small))
    with ThreadPoolExecutor(_N_READERS) as pool:
        for checks in (pool.map(check, small), map(check, large)):
            for outcome in checks:
                _add(result, outcome)
                on_progress(result.n_files, n_files)
        damaged = {finding.name for finding in result.findings if finding.name}
        for outcome in lists.check(pool, damaged):
            _add(result, outcome)
            if outcome.n_listed_files:
                on_progress(result.n_files + result.n_listed_files, n_files)
    result.findings += check_reviews(run)
    leftovers = find_leftovers(run, files, jobs)
    result.findings += [_note(run.layout, leftover) for leftover in leftovers]
    result.findings.sort(key=lambda finding: (not finding.is_damage, finding.path))
    return result


def _add(total: Verification, part: Verification) -> None:
    total.n_files += part.n_files
    total.n_images += part.n_images
    total.n_labels += part.n_labels
    total.n_listed_files += part.n_listed_files
    total.n_listed += part.n_listed
    total.findings += part.findings


def _note(layout: RunLayout, leftover: Leftover) -> Finding:
    mend = Mend.DELETE if leftover.is_ours else Mend.NOTHING
    path = layout.below(leftover.path)
    return Finding("leftover" if leftover.is_ours else "foreign", path, leftover.message, mend, leftover.name)


def _check_records(run: Run, result: Verification) -> tuple[RunRecord | None, list[JobRecord]]:
    """The readable records of a run; what is wrong with them goes into the findings."""
    path, record, problem = run.layout.below(run.layout.record), None, None
    try:
        record = run.read_record()
    except StoreError as error:
        problem = one_line(error.__cause__ or error)
    if record is None:
        problem = problem or "is missing; expected what makes the run"
    elif record.run != run.name or record.schema_version not in READABLE_VERSIONS:
        versions = " or ".join(map(str, READABLE_VERSIONS))
        problem = f"is of run {record.run}, schema version {record.schema_version}; expected {run.name}, {versions}"
    if problem:
        result.findings.append(Finding("record", path, problem, Mend.BY_HAND))
    jobs = []
    for path, content in run.read_job_files().items():
        try:
            jobs.append(JobRecord.from_json(content))
        except (ValueError, TypeError) as error:
            result.findings.append(
                Finding("record", run.layout.below(path), f"is no record: {one_line(error)}", Mend.DELETE)
            )
    return record, jobs


def _damaged_parts(run: Run) -> Iterator[Finding]:
    """Parts of the ledger that cannot be read: they are as if they were not there."""
    for path in find_damaged_parts(run.filesystem, run.layout):
        yield Finding("record", run.layout.below(path), "is no part of a ledger, or damaged", Mend.DELETE)


class _FileCheck:
    """Checks one file of images with all that belongs to it."""

    def __init__(self, run: Run, record: RunRecord | None, files: RunFiles) -> None:
        self._run, self._files = run, files
        self._fingerprint = record.fingerprint if record else None
        noted = read_ledger(run.filesystem, run.layout, files.committed.files)
        self._noted, self._places = noted, {name: row for row, name in enumerate(noted["file"].to_pylist())}
        self._ranking = RANKINGS.get(str(record.labelling.get("ranking"))) if record else None

    def __call__(self, name: str) -> Verification:
        result = Verification(self._run.name)
        images, labels = (self._decode(table, name, result) for table in ("images", "labels"))
        if images and labels:
            self._check_pair(name, images, labels, result)
        if labels and is_compacted(name):
            self._check_spellings(name, labels[0], result)
        if result.findings and not self._run.filesystem.exists(self._run.layout.images(name)):
            # A job or a compaction replaced it meanwhile.
            return Verification(self._run.name)
        result.n_files = 1
        return result

    def _decode(self, table: str, name: str, result: Verification) -> tuple[pa.Table, dict[str, str]] | None:
        """Rows and metadata of a file, or None where it is damaged."""
        path = self._run.layout.file(table, name)
        with storage_errors(f"read {path}"):
            content = read_if_exists(self._run.filesystem, path)
        try:
            if content is None:
                raise DamagedFileError("missing", f"is missing; expected it beside images/run={self._run.name}/{name}")
            rows, described = decode_file(content, {"images": IMAGES, "labels": LABELS, "spellings": SPELLINGS}[table])
            if problem := check_described(described, self._fingerprint):
                raise DamagedFileError("metadata", problem)
        except DamagedFileError as damage:
            self._find(result, table, name, damage.kind, str(damage))
            return None
        return rows, described

    def _check_pair(
        self,
        name: str,
        images: tuple[pa.Table, Mapping[str, str]],
        labels: tuple[pa.Table, Mapping[str, str]],
        result: Verification,
    ) -> None:
        problems = list(_check_shards(name, images[1], labels[1]))
        for table, message in problems:
            self._find(result, table, name, "metadata", message)
        if problems:
            return
        shards = [held.shard for held in read_held(images[1]["shards"])] if is_compacted(name) else [images[1]["shard"]]
        for problem in check_rows(images[0], labels[0], shards, self._ranking):
            self._find(result, problem.table, name, problem.kind, problem.message)
        result.n_images, result.n_labels = images[0].num_rows, labels[0].num_rows
        self._check_noted(name, images[0], labels[0].num_rows, result)

    def _check_noted(self, name: str, images: pa.Table, n_labels: int, result: Verification) -> None:
        """Checks what the ledger says of a file, by which `status` counts it."""
        if name not in self._places:
            return
        plain = pa.schema([IMAGES_OF_HASHES.field(column) for column in counted_columns(images.column_names)])
        counts = count_rows(images.select(plain.names).cast(plain), n_labels)
        (noted,) = self._noted.slice(self._places[name], 1).to_pylist()
        wrong = [f"{kind} {noted[kind]}" for kind in counts if noted[kind] != counts[kind]]
        if wrong:
            path = self._run.layout.below(self._run.layout.ledger)
            message = f"says {', '.join(wrong)} of {name}, which holds something else"
            result.findings.append(Finding("record", path, message, Mend.DELETE))

    def _check_spellings(self, name: str, labels: pa.Table, result: Verification) -> None:
        found = self._decode("spellings", name, result)
        if found is None:
            return
        expected, spelled = (
            set(pc.unique(rows.column("label").cast(pa.string())).to_pylist()) for rows in (labels, found[0])
        )
        if expected != spelled or found[0].num_rows != len(spelled):
            message = (
                f"has {found[0].num_rows:,} labels; expected each of the {len(expected):,} of the labels file once"
            )
            self._find(result, "spellings", name, "spellings", message)

    def _find(self, result: Verification, table: str, name: str, kind: str, message: str) -> None:
        mend = Mend.NAME_ANEW if table == "spellings" else Mend.TAKE_OUT
        result.findings.append(Finding(kind, f"{table}/run={self._run.name}/{name}", message, mend, name))


def _check_shards(name: str, images: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with what the files say of their shards: (table, problem)."""
    if is_compacted(name):
        try:
            shards = [shard_stem(held.shard) for held in read_held(images["shards"])]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            yield "images", f"does not say which shards it holds: {one_line(error)}"
            return
        if not shards or len(set(shards)) != len(shards):
            yield "images", f"lists {len(shards)} shards, {len(set(shards))} of them distinct; expected each once"
        # Compactions of former versions list them with the images alone.
        if labels.get("shards", images["shards"]) != images["shards"]:
            yield "labels", "lists other shards than its file of images"
        return
    stem, _ = split_file_name(name)
    for table, described in (("images", images), ("labels", labels)):
        shard = described.get("shard")
        if shard is None or shard_stem(shard) != stem:
            yield table, f"is of the shard {shard!r}; expected the one that its name says"
        elif missing := [key for key in _VERSION_KEYS if key not in described]:
            yield table, f"lacks {' and '.join(missing)}; expected the version of the source's file"
        elif (size := described["source_size"]) and not size.isdecimal():
            yield table, f"says the source's file had {size!r} bytes"
        elif table == "labels" and any(labels[key] != images.get(key) for key in _VERSION_KEYS):
            yield table, "were made from another version of the source's file than the images beside them"
