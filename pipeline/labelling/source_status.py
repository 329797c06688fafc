"""How much of its source a run has labelled, and what changed there meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import SourceError
from pipeline.labelling.pending import find_changed, find_missing, run_shards
from pipeline.sources.image_folder import deal, split_generation
from pipeline.sources.listing import find_source, is_there
from pipeline.sources.shard import Shard, Source
from pipeline.store.ownership import CommittedShards, shard_stem
from pipeline.store.run import Run
from schemas import JobRecord, RunRecord

_N_READERS = 16


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A run's commits compared with the shards that its source has now."""

    n_source: int
    """Shards of the source."""
    open: list[str]
    """Names of the source's shards that are not committed, sorted."""
    changed: list[str]
    """Names of the source's shards that changed after they were committed."""
    missing: list[str]
    """Names of committed shards that the source no longer has, sorted."""
    n_images_gone: int
    """Committed images of a folder whose files no longer exist; 0 for a source that comes in shards."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many files of the source are left out, by kind; most first."""

    @property
    def n_committed(self) -> int:
        """How many of the source's shards are committed."""
        return self.n_source - len(self.open)


def compare_with_source(run: Run, record: RunRecord, committed: CommittedShards) -> SourceStatus:
    """Lists the source and compares it with the run's commits; shards are not opened.

    Raises TagstreamError where the source cannot be listed, or leads to another root than that of the run.
    """
    source = _list_source(record, run.read_jobs())
    shards = run_shards(run, source, record.folder_buckets, committed)
    of_kind = source.of_kind(is_folder=bool(record.folder_buckets)) or source
    done = [shard for shard in shards if shard.name in committed]
    changed = find_changed(run, done, committed)
    return SourceStatus(
        n_source=len(shards),
        open=sorted(shard.name for shard in shards if shard.name not in committed),
        changed=[shard.name for shard in changed],
        missing=sorted(map(unquote, find_missing(shards, committed))),
        n_images_gone=_count_gone(run, done, committed) if record.folder_buckets else 0,
        skipped=of_kind.skipped,
    )


def _count_gone(run: Run, shards: list[Shard], committed: CommittedShards) -> int:
    """Committed images of a folder whose files are gone."""
    with ThreadPoolExecutor(_N_READERS) as pool:
        keys = pool.map(lambda shard: run.read_keys(shard.name, committed[shard.name]), shards)
        return sum(len(of_shard) - len(shard.files) for of_shard, shard in zip(keys, shards, strict=True))


def labelling_command(jobs: Iterable[JobRecord]) -> str | None:
    """The newest command line of a run's jobs, retries left out: they do not label open shards. None without one."""
    commands = [job.command for job in jobs if job.command and job.command.split()[1:2] != ["retry"]]
    return commands[-1] if commands else None


def known_addresses(record: RunRecord, jobs: Sequence[JobRecord]) -> tuple[str, ...]:
    """The arguments that lead to a run's source: those that it began with and those of its newest job, which may be
    more. What is gone of several is left out.
    """
    known = dict.fromkeys((*record.addresses, *(jobs[-1].sources if jobs else ())))
    there = [address for address in known if is_there(address)]
    return tuple(there) if len(known) > 1 and there else record.addresses


def stems_at_source(run: Run, record: RunRecord, stems: Iterable[str]) -> set[str]:
    """Those of a run's shard stems that the source still has. Raises TagstreamError as `compare_with_source`."""
    source = _list_source(record, run.read_jobs()).of_kind(is_folder=bool(record.folder_buckets))
    if source is None:
        return set()
    if not source.images:
        return {shard_stem(shard.name) for shard in source.shards}.intersection(stems)
    buckets = deal(source.images, record.folder_buckets)
    return {stem for stem in stems if split_generation(stem)[0] in buckets}


def _list_source(record: RunRecord, jobs: Sequence[JobRecord]) -> Source:
    addresses = known_addresses(record, jobs)
    is_as_given = len(addresses) == 1 and addresses == record.addresses
    source = find_source(_source_to_list(record)) if is_as_given else find_source(*addresses)
    if source.root != record.source_root:
        raise SourceError(
            f"{record.source} leads to {source.root or 'a list'} from here, and the run labels "
            f"{record.source_root or 'a list'}; go to the folder in which the run was made"
        )
    return source


def _source_to_list(record: RunRecord) -> str:
    """What to list: a folder that was given by a relative path has a root, which is the same from everywhere."""
    given, root = Path(record.source).parts, Path(record.source_root).parts
    is_relative = "://" not in record.source and not record.source.startswith("@") and record.source_root
    return record.source_root if is_relative and root[len(root) - len(given) :] == given else record.source
