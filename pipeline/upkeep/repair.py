"""Takes damage out of a store, so that the next job labels anew what is gone; deletes what killed jobs left behind.

The order of the steps decides what a kill in between leaves. Files that own nothing go first, compacted files before
shards' own: a damaged file must not uncover an older one of its shard, whose rows would count again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from urllib.parse import unquote

from pipeline.errors import StoreError, TagstreamError
from pipeline.labelling.source_status import stems_at_source
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.storage.files import storage_errors
from pipeline.store.lock import find_left_locks, is_lock
from pipeline.store.ownership import is_compacted, shard_stem
from pipeline.store.run import Run
from pipeline.store.run_files import RunFiles, list_run_files
from pipeline.upkeep.compaction import rewrite_spellings, rewrite_without_superseded
from pipeline.upkeep.findings import Finding, Mend, Verification


@dataclass(frozen=True, slots=True)
class Repaired:
    """One thing that was done."""

    what: str
    path: str
    """Path below the store of what was repaired, and what goes with it."""
    n_opened: int = 0
    """How many shards the next job labels anew."""
    is_mended: bool = True
    """Whether the damage is gone. Otherwise it was left, and `path` says why."""


def repair_run(run: Run, verification: Verification) -> Iterator[Repaired]:
    """Mends what a verification found, as far as that is safe, and tells each step when it is done.

    Damaged shards that the source does not have any more are left: nobody could label them anew. What a job or a
    compaction has replaced meanwhile is passed over. Raises StoreError where the storage fails.
    """
    findings = verification.findings
    yield from _delete_leftovers(run, [finding for finding in findings if finding.mend is Mend.DELETE])
    files = list_run_files(run)
    run.delete_files(files.committed.ownerless)
    damaged = {finding.name for finding in findings if finding.mend is Mend.TAKE_OUT}
    # A job or a compaction may have replaced a file since it was read.
    damaged &= {*files.committed.files, *files.unreadable}
    left = _find_irreplaceable(run, files, damaged) if damaged else {}
    for name, reason in left.items():
        yield Repaired("left", f"images/run={run.name}/{name} and its labels: {reason}", is_mended=False)
    taken = damaged - left.keys()
    yield from _rewrite_former_rows(run, files, taken)
    for name in sorted(taken, key=lambda name: (not is_compacted(name), name)):
        with storage_errors(f"delete {name} in the store {run.store_url}"):
            run.delete_files([name])
        yield Repaired("taken out", f"images/run={run.name}/{name} and its labels", len(_owned(files, name)))
    yield from _take_out_listed(run, findings)
    for finding in findings:
        if finding.mend is Mend.NAME_ANEW and finding.name in files.committed.files.keys() - damaged:
            rewrite_spellings(run, finding.name, read_vocabulary(None))
            yield Repaired("made anew", finding.path)


def _take_out_listed(run: Run, findings: Iterable[Finding]) -> Iterator[Repaired]:
    """Deletes damaged files of listed labels: a label job with --names scores their shards again."""
    for finding in findings:
        if finding.mend is Mend.TAKE_OUT_LISTED:
            path = f"{run.layout.root}/{finding.path}"
            with storage_errors(f"delete {path}"), contextlib.suppress(FileNotFoundError):
                run.filesystem.rm_file(path)
                yield Repaired("taken out", finding.path)


def _find_irreplaceable(run: Run, files: RunFiles, names: Iterable[str]) -> dict[str, str]:
    """Files with rows that no job could label anew, each with the reason: these are not for a machine to delete."""
    try:
        record = run.read_record()
        if record is None:
            raise StoreError("the record of the run is missing")
        at_source = stems_at_source(record, files.committed.by_stem)
    except TagstreamError as error:
        return dict.fromkeys(sorted(names), f"its source could not be looked at ({error})")
    gone = {name: sorted(_owned(files, name) - at_source) for name in sorted(names)}
    return {
        name: f"{len(stems):,} of its shards are no longer at the source, the first is {unquote(stems[0])}"
        for name, stems in gone.items()
        if stems
    }


def _owned(files: RunFiles, name: str) -> set[str]:
    """Stems of the shards that a file owns."""
    return {stem for stem, commit in files.committed.by_stem.items() if commit.file == name}


def _delete_leftovers(run: Run, leftovers: list[Finding]) -> Iterator[Repaired]:
    owned = list_run_files(run)
    left_locks = {lock.path for lock in find_left_locks(run)}
    # Images first: labels without them are not read.
    for finding in sorted(leftovers, key=lambda finding: (not finding.name, finding.path)):
        if finding.name in owned.committed.files:
            continue
        path = f"{run.layout.root}/{finding.path}"
        if is_lock(path) and path not in left_locks:
            # It was renewed meanwhile.
            continue
        with storage_errors(f"delete {path}"), contextlib.suppress(FileNotFoundError):
            if finding.name:
                run.delete_files([finding.name])
            elif run.filesystem.isdir(path):
                run.filesystem.rm(path, recursive=True)
            else:
                run.filesystem.rm_file(path)
            yield Repaired("deleted", finding.path)


def _rewrite_former_rows(run: Run, files: RunFiles, taken: Set[str]) -> Iterator[Repaired]:
    """Rewrites compacted files that hold former rows of the shards that are taken out: without their owner they would
    count again.
    """
    opened = {stem for stem, commit in files.committed.by_stem.items() if commit.file in taken}
    for name, shards in files.committed.superseded.items():
        if name not in taken and any(shard_stem(shard) in opened for shard in shards):
            file = files.committed.files[name]
            rewrite_without_superseded(run, file, files.committed, read_vocabulary(None))
            path = f"images/run={files.run}/{name} and its labels, without the shards that newer files hold"
            yield Repaired("rewritten", path)
