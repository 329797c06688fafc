"""Reads the lists of names of a run and all of their labels, and tells what is not as it was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from concurrent.futures import Executor
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage.files import read_if_exists, storage_errors
from pipeline.store.lists import ListedFiles, RunLists
from pipeline.store.ownership import CommittedShards, file_name, is_compacted, read_held, split_file_name
from pipeline.store.parquet_file import reading
from pipeline.store.run import Run
from pipeline.text import one_line
from pipeline.upkeep.file_checks import DamagedFileError, check_described, check_listed, decode_file
from pipeline.upkeep.findings import Finding, Mend, Verification
from schemas import IMAGES, LISTED, ListRecord

_COLUMNS = ("image_id", "shard", "index", "status")
_NO_IMAGES = pa.Table.from_batches([], pa.schema([IMAGES.field(name) for name in _COLUMNS]))


class ListsCheck:
    """Checks all files of all lists of a run. Attribute: `n_files`, how many that are."""

    def __init__(self, run: Run, fingerprint: str | None, committed: CommittedShards) -> None:
        """
        Args:
            fingerprint: of the run; None where that is not known.
        """
        self._run, self._fingerprint, self._committed = run, fingerprint, committed
        lists = RunLists(run)
        self._files = [lists.files(version, committed) for version in lists.versions()]
        self.n_files = sum(len(files.owners.files) + len(files.unreadable) for files in self._files)

    def check(self, pool: Executor, damaged: Set[str]) -> Iterator[Verification]:
        """What is found, file by file; first what is wrong with the records.

        Args:
            pool: reads the files.
            damaged: names of files of images that cannot be read, which are findings of their own.
        """
        records, findings = self._read_records()
        yield Verification(self._run.name, findings=findings)
        for files in self._files:
            record = records.get(files.version)
            names = [*files.owners.files, *files.unreadable]
            check = partial(self._check, files, record, damaged)
            yield from pool.map(check, names)

    def _read_records(self) -> tuple[dict[str, ListRecord], list[Finding]]:
        layout = self._run.layout
        records: dict[str, ListRecord] = {}
        findings = []
        for path, content in RunLists(self._run).record_files().items():
            try:
                record = ListRecord.from_json(content)
                if path != layout.list_record(record.version) or record.run != self._run.name:
                    raise ValueError(f"is of list {record.version} of run {record.run}")
                records[record.version] = record
            except (ValueError, TypeError) as error:
                problem = f"is no record: {one_line(error)}"
                findings.append(Finding("record", layout.below(path), problem, Mend.DELETE))
        for files in self._files:
            if files.version not in records and files.infos:
                path = layout.below(layout.list_record(files.version))
                findings.append(Finding("record", path, "is missing or damaged", Mend.LIST_AGAIN))
        return records, findings

    def _check(self, files: ListedFiles, record: ListRecord | None, damaged: Set[str], name: str) -> Verification:
        path = self._run.layout.listed(files.version, name)
        result = Verification(self._run.name)
        with storage_errors(f"read {path}"):
            content = read_if_exists(self._run.filesystem, path)
        if content is None:
            # A job or a compaction replaced it meanwhile.
            return result
        try:
            rows, described = decode_file(content, LISTED)
            if problem := check_described(described, self._fingerprint) or _describes_another(files, name, described):
                raise DamagedFileError("metadata", problem)
            judged = [shard for shard in _shards_of(name, described) if self._is_judged(files, name, shard, damaged)]
            rows = rows.filter(pc.is_in(rows.column("shard").cast(pa.string()), pa.array(judged, pa.string())))
            for found in check_listed(self._images(judged), rows, judged, record):
                raise DamagedFileError(found.kind, found.message)
        except DamagedFileError as damage:
            below = self._run.layout.below(path)
            result.findings.append(Finding(damage.kind, below, str(damage), Mend.TAKE_OUT_LISTED))
            return result
        result.n_listed_files, result.n_listed = 1, rows.num_rows
        return result

    def _is_judged(self, files: ListedFiles, name: str, shard: str, damaged: Set[str]) -> bool:
        """Whether a shard's rows count, and its images can be read."""
        return files.owners.is_owner(name, shard) and self._committed[shard].file not in damaged

    def _images(self, shards: list[str]) -> pa.Table:
        """Images of committed shards."""
        by_file: dict[str, list[str]] = {}
        for shard in shards:
            by_file.setdefault(self._committed[shard].file, []).append(shard)
        tables = [_NO_IMAGES]
        for name, of_file in by_file.items():
            path = self._run.layout.images(name)
            with reading(path), self._run.filesystem.open(path, "rb") as file:
                tables.append(pq.read_table(file, columns=list(_COLUMNS), filters=[("shard", "in", of_file)]))
        return pa.concat_tables([table.select(list(_COLUMNS)).cast(_NO_IMAGES.schema) for table in tables])


def _describes_another(files: ListedFiles, name: str, described: Mapping[str, str]) -> str | None:
    """What is wrong with what a file says of its list and its shards."""
    if (found := described.get("list")) != files.version:
        return f"says it is of the list {found}; expected {files.version}"
    if is_compacted(name):
        return None if name not in files.unreadable and "shards" in described else "does not say which shards it holds"
    expected = file_name(described.get("shard", ""), split_file_name(name)[1])
    return None if expected == name else f"says it holds shard {described.get('shard')!r}"


def _shards_of(name: str, described: Mapping[str, str]) -> list[str]:
    try:
        return [held.shard for held in read_held(described["shards"])] if is_compacted(name) else [described["shard"]]
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedFileError("metadata", f"does not say which shards it holds: {one_line(error)}") from error
