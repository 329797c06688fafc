"""Lists of names in a job: which committed shards lack their listed labels, and how these are added.

A list may come to a run that is labelled already. The images of such shards are read and scored again, and their open
labels stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.committing import Commit, Committer
from pipeline.sources.shard import Shard
from pipeline.store.lists import RunLists
from pipeline.store.ownership import CommittedShard, CommittedShards, shard_stem
from pipeline.store.run import Run
from schemas import LABELLED, LISTED


@dataclass(frozen=True, slots=True)
class ListPlan:
    """What a job has to know of a run's lists."""

    asked: tuple[str, ...] = ()
    """Versions of the lists that the job scores."""
    known: frozenset[str] = frozenset()
    """Versions of all lists of the run, those that the job adds included."""
    shards: list[Shard] = field(default_factory=list)
    """Committed shards, not labelled again by this job, that lack the listed labels of a list that is asked for."""
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By name of these shards: versions of the lists that are asked for and lacking."""
    committed: Mapping[str, CommittedShard] = field(default_factory=dict)
    """By name of these shards: their commits."""
    highest: Mapping[str, int] = field(default_factory=dict)
    """By stem: the highest generation of which the store has listed labels. New commits come above it."""

    def above(self, shard: str) -> int:
        """The generation that a commit of a shard has to be above; -1 for any."""
        return self.highest.get(shard_stem(shard), -1)

    def listed_of(self, shard: WholeShard) -> dict[str, pa.Table | None]:
        """Of every known list what a commit of the shard writes; None for lists that the job does not score."""
        listed: dict[str, pa.Table | None] = dict.fromkeys(sorted(self.known))
        return listed | {version: shard.listed.get(version, no_listed()) for version in self.asked}


def plan_lists(run: Run, asked: Sequence[str], shards: Sequence[Shard], committed: CommittedShards) -> ListPlan:
    """Compares the run's listed labels with its commits.

    Args:
        asked: versions of the lists that the job scores.
        shards: committed shards that may get listed labels as they are: neither changed nor labelled again.
    """
    lists = RunLists(run)
    known = {*lists.versions(), *asked}
    files = {version: lists.files(version, committed) for version in sorted(known)}
    lacking = {
        shard.name: tuple(version for version in asked if shard.name not in files[version].owners) for shard in shards
    }
    lacking = {name: versions for name, versions in lacking.items() if versions}
    return ListPlan(
        asked=tuple(asked),
        known=frozenset(known),
        shards=[shard for shard in shards if shard.name in lacking],
        lacking=lacking,
        committed={name: committed[name] for name in lacking},
        highest=lists.highest_generations(files.values()),
    )


class ListCommitter(Committer):
    """Adds listed labels to shards that are committed."""

    def __init__(
        self,
        run: Run,
        fingerprint: str,
        plan: ListPlan,
        on_left: Callable[[int], None],
        on_commit: Callable[[Commit], None],
    ) -> None:
        """
        Args:
            on_left: is told of each shard how many of its labelled images did not come back as they were.
            on_commit: as of `Committer`.
        """
        self._lists, self._plan, self._on_left = RunLists(run), plan, on_left
        super().__init__(run, fingerprint, plan.committed, lambda shard, former: shard, on_commit)

    def _write(self, shard: WholeShard, former: CommittedShard | None) -> bool:
        assert former is not None
        listed, n_left = match_listed(shard, self._run.read_images(shard.name, former, _MATCHED))
        self._on_left(n_left)
        metadata = {"fingerprint": self._fingerprint}
        written = [
            self._lists.add(version, shard.name, former, listed.get(version, no_listed()), metadata)
            for version in self._plan.lacking[shard.name]
        ]
        return any(written)


_MATCHED = ("image_id", "index", "key", "status", "content_hash")


def match_listed(shard: WholeShard, images: pa.Table) -> tuple[dict[str, pa.Table], int]:
    """Listed labels of images as they came back, for the same images as they are committed.

    Images are the same that have one key and one content: of a folder files may be gone or changed meanwhile.

    Args:
        images: the shard's committed images: image_id, index, key, status, content_hash.

    Returns: listed labels by list, and how many of the images that are labelled did not come back.
    """
    stored = {(row["key"], row["content_hash"]): row for row in images.to_pylist() if row["status"] == LABELLED}
    came = shard.images.select(list(_MATCHED)).to_pylist()
    places = {
        row["index"]: stored[row["key"], row["content_hash"]]
        for row in came
        if row["status"] == LABELLED and (row["key"], row["content_hash"]) in stored
    }
    return {version: move_rows(rows, places, LISTED) for version, rows in shard.listed.items()}, len(stored) - len(
        places
    )


def move_rows(rows: pa.Table, places: Mapping[int, Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of images that came back, with index and image_id of the same images in the store; others are left out.

    Args:
        places: index and image_id in the store, by the `index` with which an image came back.
    """
    rows = rows.filter(pc.is_in(rows["index"], pa.array(list(places), pa.int32())))
    found = [places[index] for index in rows["index"].to_pylist()]
    columns = {
        **{name: rows[name] for name in rows.column_names},
        "index": pa.array([place["index"] for place in found], pa.int32()),
        "image_id": pa.array([place["image_id"] for place in found], pa.int64()),
    }
    return pa.table(columns, schema=rows.schema).cast(schema)


def no_listed() -> pa.Table:
    """Listed labels of a shard that has none. Not the schema's own table, for which pyarrow imports pandas."""
    return pa.Table.from_batches([], LISTED)
