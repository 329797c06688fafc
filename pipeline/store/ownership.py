"""Which of a run's files hold which shards.

A file never changes once it is written. A shard is committed in a file of its own, its first generation; a commit that
replaces it is the next generation, in another file; compaction puts many shards into one file, each in the generation
that it had. Of the files that hold a shard one owns it: that of the highest generation, and among equal ones, which
hold the same rows, that of the latest compaction. What is not owned is not read and may be deleted at any time. So
nobody has to wait for anybody: whoever comes late does not own, and no row counts twice or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from urllib.parse import quote

SUFFIX = ".parquet"
# File systems end a name at 255 bytes.
_MAX_STEM_CHARACTERS = 200
_KEPT_OF_LONG_STEM = 160
# Of a name that is its own stem: quoting takes ten times as long, and stores have hundreds of thousands.
_PLAIN = re.compile(r"[A-Za-z0-9~+ =,@()-][A-Za-z0-9_.~+ =,@()-]{0,199}")
# `!` is never part of an escaped name, and a digest has no g.
_GENERATION = re.compile(r"(?P<stem>.+)!g(?P<generation>[1-9]\d*)")
_COMPACTED = re.compile(r"compacted!(?P<sequence>\d+)-[0-9a-f]+\.parquet")


@dataclass(frozen=True, slots=True)
class ShardVersion:
    """The version of the source's file that a committed shard was made from."""

    size: int | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class CommittedShard:
    """A shard as the file that owns it holds it."""

    file: str
    """Its name among the run's images; that of its labels is the same."""
    generation: int
    modified: float | None
    """When the shard was committed, seconds since the epoch."""
    version: ShardVersion | None = None
    """Where it is known without opening the file."""


@dataclass(frozen=True, slots=True)
class HeldShard:
    """What a file of several shards says of each."""

    shard: str
    generation: int
    modified: float | None
    size: int | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file of images as the listing shows it."""

    name: str
    modified: float | None
    held: tuple[HeldShard, ...] = ()
    """The shards of a file of several."""
    size: int | None = None
    """Bytes, where the listing tells."""

    @property
    def sequence(self) -> int:
        """The place in the order of compactions; 0 for a shard's own file."""
        match = _COMPACTED.fullmatch(self.name)
        return int(match["sequence"]) if match else 0


@dataclass(slots=True)
class CommittedShards:
    """The committed shards of a run, and the files that hold them."""

    by_stem: dict[str, CommittedShard] = field(default_factory=dict)
    files: dict[str, ShardFile] = field(default_factory=dict)
    """Files that own a shard, by name."""
    superseded: dict[str, list[str]] = field(default_factory=dict)
    """By file of several shards: those of them that another file owns."""
    ownerless: list[str] = field(default_factory=list)
    """Files that own nothing."""

    def __len__(self) -> int:
        return len(self.by_stem)

    def __contains__(self, shard: str) -> bool:
        return shard_stem(shard) in self.by_stem

    def __getitem__(self, shard: str) -> CommittedShard:
        return self.by_stem[shard_stem(shard)]

    def has_generation(self, stem: str, generation: int) -> bool:
        """Whether this generation of a shard is the one that counts."""
        return stem in self.by_stem and self.by_stem[stem].generation == generation

    def is_owner(self, file: str, shard: str) -> bool:
        """Whether a file owns a shard."""
        owner = self.by_stem.get(shard_stem(shard))
        return owner is not None and owner.file == file


def find_owners(files: Sequence[ShardFile], beside: CommittedShards | None = None) -> CommittedShards:
    """Decides which file owns which shard.

    Args:
        beside: committed shards to which the files add something, as listed labels do. Only what a file says of the
            generation that is committed counts then.
    """
    owners: dict[str, tuple[tuple[int, int, str], CommittedShard]] = {}
    for file in files:
        for stem, commit in held_shards(file):
            if beside is not None and not beside.has_generation(stem, commit.generation):
                continue
            rank = (commit.generation, file.sequence, file.name)
            if stem not in owners or rank > owners[stem][0]:
                owners[stem] = (rank, commit)
    by_stem = {stem: commit for stem, (_, commit) in owners.items()}
    owning = {commit.file for commit in by_stem.values()}
    committed = CommittedShards(by_stem)
    for file in files:
        if file.name not in owning:
            committed.ownerless.append(file.name)
            continue
        committed.files[file.name] = file
        lost = [held.shard for held in file.held if not committed.is_owner(file.name, held.shard)]
        if lost:
            committed.superseded[file.name] = lost
    return committed


def held_shards(file: ShardFile) -> Iterable[tuple[str, CommittedShard]]:
    """Stems of the shards that a file holds, each with what the file says of it."""
    if not file.sequence:
        stem, generation = split_file_name(file.name)
        yield stem, CommittedShard(file.name, generation, file.modified)
    for held in file.held:
        version = ShardVersion(held.size, held.etag)
        yield shard_stem(held.shard), CommittedShard(file.name, held.generation, held.modified, version)


def file_name(shard: str, generation: int = 0) -> str:
    """The file of a shard's generation, another one for each."""
    return shard_stem(shard) + (f"!g{generation}" if generation else "") + SUFFIX


def split_file_name(name: str) -> tuple[str, int]:
    """The stem and the generation of a shard's own file."""
    stem = name.removesuffix(SUFFIX)
    match = _GENERATION.fullmatch(stem)
    return (match["stem"], int(match["generation"])) if match else (stem, 0)


def shard_stem(shard: str) -> str:
    """How a shard's files begin.

    Everything but plain characters is escaped, so that '/' is never taken for '-'; so is a first dot or underscore,
    which tools take for a sign of files to pass over. Of a long name the beginning and a digest are kept; `!` is never
    part of an escaped name.
    """
    if _PLAIN.fullmatch(shard):
        return shard
    stem = quote(shard, safe="+ =,@()")
    if stem.startswith((".", "_")):
        stem = f"%{ord(stem[0]):02X}{stem[1:]}"
    if not stem or len(stem) > _MAX_STEM_CHARACTERS:
        digest = hashlib.blake2b(shard.encode(), digest_size=16).hexdigest()
        stem = f"{stem[:_KEPT_OF_LONG_STEM]}!{digest}"
    return stem


def is_compacted(name: str) -> bool:
    """Whether a file holds the shards that compaction put together."""
    return _COMPACTED.fullmatch(name) is not None


def compacted_file_name(after: Iterable[ShardFile]) -> str:
    """A name for a file of several shards that comes after all of these files."""
    sequence = 1 + max((file.sequence for file in after), default=0)
    return f"compacted!{sequence:06d}-{uuid.uuid4().hex[:12]}{SUFFIX}"


def write_held(shards: Iterable[HeldShard]) -> str:
    """The shards of a file as its metadata has them."""
    return json.dumps([asdict(shard) for shard in shards])


def read_held(text: str) -> tuple[HeldShard, ...]:
    """Raises ValueError or TypeError for what `write_held` did not write."""
    shards: list[Mapping[str, object]] = json.loads(text)
    return tuple(HeldShard(**shard) for shard in shards)  # type: ignore[arg-type]
