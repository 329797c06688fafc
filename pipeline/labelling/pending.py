"""Which shards a job has to label: those of the source, less those that are committed. And in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count

from pipeline.errors import SourceError
from pipeline.labelling.listing import ListPlan, plan_lists
from pipeline.sources.image_folder import deal, folder_shard, generation_name, split_generation
from pipeline.sources.shard import ColumnNames, Shard, Source
from pipeline.storage.files import CLOCK_SKEW_S
from pipeline.store.ownership import CommittedShard, CommittedShards, ShardVersion, shard_stem
from pipeline.store.run import Run

_N_LOOKERS = 32
# Fewer files are opened rather than the run listed once more.
_MANY_SUSPECTS = 100
# Ray Data's driver keeps something of every block it has seen (ray-project/ray#66016): long jobs run in waves.
_SHARDS_PER_WAVE = 2000


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A job's work."""

    pending: list[Shard]
    """The shards to label, in this order."""
    n_shards: int
    """Number of shards of the source, those of former generations of a folder included."""
    changed: list[Shard]
    """Shards that changed at the source after they were committed, whether they are labelled again or not."""
    replaced: dict[str, CommittedShard]
    """The former commits of pending shards that are labelled again, by shard name."""
    n_missing: int = 0
    """Number of shards that are committed and no longer at the source."""
    lists: ListPlan = field(default_factory=ListPlan)
    """What is to be done for lists of names."""

    @property
    def n_done(self) -> int:
        """Number of the source's shards that need no labelling."""
        return self.n_shards - len(self.pending)

    def with_columns(self, columns: ColumnNames) -> ShardPlan:
        """The same work, of which Parquet files are read by these columns."""
        pending, lists = (
            [replace(shard, columns=columns) for shard in shards] for shards in (self.pending, self.lists.shards)
        )
        return replace(self, pending=pending, lists=replace(self.lists, shards=lists))


def plan_shards(run: Run, source: Source, n_buckets: int, changed_policy: str, lists: Sequence[str] = ()) -> ShardPlan:
    """Compares the source with the run's commits.

    Args:
        n_buckets: how many shards a folder of images is cut into.
        changed_policy: keep, relabel or fail.
        lists: versions of the lists of names that every shard is to have the scores of.

    Raises SourceError where shards changed and the policy is `fail`, and where the run holds shards of another kind.
    """
    committed = run.committed()
    shards = run_shards(run, source, n_buckets, committed)
    pending = [shard for shard in shards if shard.name not in committed]
    changed = find_changed(run, [shard for shard in shards if shard.name in committed], committed)
    if changed and changed_policy == "fail":
        raise SourceError(
            f"{len(changed)} shards changed after they were committed, the first is {changed[0].url}; "
            "--changed relabel labels them again, --changed keep leaves their labels as they are"
        )
    relabelled = changed if changed_policy == "relabel" else []
    pending = sorted([*pending, *relabelled], key=lambda shard: shard.name)
    replaced = {shard.name: committed[shard.name] for shard in relabelled}
    left = {shard.name for shard in (*pending, *changed)}
    listing = plan_lists(run, lists, [shard for shard in shards if shard.name not in left], committed)
    return ShardPlan(pending, len(shards), changed, replaced, len(find_missing(shards, committed)), listing)


def run_shards(run: Run, source: Source, n_buckets: int, committed: CommittedShards) -> list[Shard]:
    """All shards of a run's source, those of former generations of a folder included.

    Raises SourceError where the run holds shards of another kind.
    """
    of_kind = source.of_kind(is_folder=bool(n_buckets))
    if of_kind is None:
        is_now, was = ("shards", "images") if n_buckets else ("images", "shards")
        raise SourceError(
            f"{source.given} holds nothing but {is_now} now, and run {run.name} labels its {was}; give the {is_now} a "
            "--run name of their own"
        )
    return _folder_shards(run, of_kind, n_buckets, committed) if n_buckets else of_kind.shards


def find_missing(shards: list[Shard], committed: CommittedShards) -> set[str]:
    """Stems of shards that are committed, and no longer at the source."""
    return committed.by_stem.keys() - {shard_stem(shard.name) for shard in shards}


def find_changed(run: Run, shards: list[Shard], committed: CommittedShards) -> list[Shard]:
    """Committed shards whose file now has another size or etag.

    Only files written at about the time of the commit or later are compared, with what the ledger notes of the commit
    or its footer says: that every other is older than its commit is told by the two listings alone.
    """

    def may_have_changed(shard: Shard) -> bool:
        commit = committed[shard.name].modified
        # Not clearly older than its commit.
        return commit is None or (shard.modified is not None and shard.modified > commit - CLOCK_SKEW_S)

    suspects = [shard for shard in shards if (shard.size, shard.etag) != (None, None) and may_have_changed(shard)]
    commits = {shard.name: committed[shard.name] for shard in suspects}
    noted = run.noted_versions(committed) if len(suspects) > _MANY_SUSPECTS else {}
    versions = {name: commit.version or noted.get(commit.file) for name, commit in commits.items()}
    unknown = [name for name, version in versions.items() if version is None]
    with ThreadPoolExecutor(_N_LOOKERS) as pool:
        versions.update(zip(unknown, pool.map(lambda name: run.read_version(commits[name]), unknown), strict=True))
    return [shard for shard in suspects if versions[shard.name] != ShardVersion(shard.size, shard.etag)]


def cut_to_limit(shards: list[Shard], limit: int) -> list[Shard]:
    """The shards to label for this many images, 0 for all: exactly so many where listings tell what the shards hold.

    The last part of a folder is cut. Its other images are a later job's, as images are that were added to the folder.
    From the first tar or Parquet file on nothing is cut: what one of these holds is known when it has been read.
    """
    cut: list[Shard] = []
    left = limit
    for position, shard in enumerate(shards):
        if not limit or shard.is_file or shard.wanted is not None:
            return [*cut, *shards[position:]]
        if left <= 0:
            break
        cut.append(shard if len(shard.files) <= left else folder_shard(shard.url, shard.name, list(shard.files[:left])))
        left -= len(shard.files)
    return cut


def cut_waves(
    shards: list[Shard],
    limit: int,
    count_images: Callable[[], int],
    size: int = _SHARDS_PER_WAVE,
    most: Callable[[], int] = lambda: _SHARDS_PER_WAVE,
) -> Iterator[list[Shard]]:
    """Shards in waves, which are read one after the other.

    Args:
        limit: how many images to label at least, 0 for all. No more waves come than it takes. How many images a shard
            holds is known once one was labelled: the first wave is one shard.
        count_images: how many images are committed; asked before each wave.
        size: how many shards a wave has at most.
        most: the same, asked before each wave.
    """
    done = 0
    while done < len(shards):
        wanted = size
        if limit:
            n_images = count_images()
            missing = limit - n_images
            if missing <= 0:
                return
            wanted = max(1, round(missing * done / max(1, n_images))) if done else 1
        wave = shards[done : done + min(wanted, size, most())]
        yield wave
        done += len(wave)


def _folder_shards(run: Run, source: Source, n_buckets: int, committed: CommittedShards) -> list[Shard]:
    """All shards of a folder; files that no committed generation holds are one that is not committed.

    A former generation may be open while later ones stand: its file was damaged, and taken out of the store.
    """
    shards = []
    generations: dict[str, set[int]] = {}
    # No character of these names is escaped: a stem is the name.
    for bucket, generation in map(split_generation, committed.by_stem):
        generations.setdefault(bucket, set()).add(generation)
    for bucket, files in deal(source.images, n_buckets).items():
        stored = generations.get(bucket, set())
        for generation in sorted(stored):
            name = generation_name(bucket, generation)
            keys = run.read_keys(name, committed[name])
            shards.append(folder_shard(source.root, name, [file for file in files if file.key in keys]))
            files = [file for file in files if file.key not in keys]
        if files:
            free = next(generation for generation in count() if generation not in stored)
            shards.append(folder_shard(source.root, generation_name(bucket, free), files))
    return shards
