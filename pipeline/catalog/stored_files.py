"""Which files of a store its views read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.catalog.label_choice import listed_files
from pipeline.store.layout import Layout
from pipeline.store.lists import ListedFiles
from pipeline.store.ownership import is_compacted
from pipeline.store.store import Store
from schemas import FORMER_IMAGES, RunRecord


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """The files that own shards as they are now, each with its run."""

    layout: Layout
    """Of the paths, which are patterns."""
    records: Mapping[str, RunRecord]
    """Of the runs that have one."""
    owning: list[tuple[str, str]]
    """Files of images and of labels."""
    listed: list[tuple[str, ListedFiles]]
    """Files of listed labels, those of a list together."""
    superseded: list[dict[str, str]]
    """What files hold that others own, as rows of file and shard."""

    @classmethod
    def of(cls, store: Store, runs: Sequence[str], records: Mapping[str, RunRecord], layout: Layout) -> StoredFiles:
        """The files of these runs as they are now.

        Args:
            records: of the runs that have one.
            layout: with the store's path as a pattern.
        """
        committed = {run: store.run(run).committed() for run in runs}
        listed = [(run, files) for run in runs for files in listed_files(store.run(run), committed[run])]
        superseded = [
            {"file": file, "shard": shard}
            for shards in (*committed.values(), *(files.owners for _, files in listed))
            for file, lost in shards.superseded.items()
            for shard in lost
        ]
        owning = [(run, file) for run, shards in committed.items() for file in shards.files]
        return cls(layout, records, owning, listed, superseded)

    def images(self, schema: pa.Schema) -> list[str]:
        """Paths of the files of images that have these columns."""
        schemas = {run: record.images_schema for run, record in self.records.items()}
        return self._paths("images", [one for one in self.owning if schemas.get(one[0], FORMER_IMAGES) is schema])

    def labels(self, *, of_views: bool, only_unnamed: bool = False) -> list[str]:
        """Paths of the files of labels that tell of which view a label is, or do not.

        Args:
            only_unnamed: those beside which no spellings lie.
        """
        telling = {run for run, record in self.records.items() if record.tells_views}
        files = [one for one in self.owning if not (only_unnamed and is_compacted(one[1]))]
        return self._paths("labels", [one for one in files if (one[0] in telling) is of_views])

    def spellings(self) -> list[str]:
        """Paths of the files of spellings."""
        return self._paths("spellings", [one for one in self.owning if is_compacted(one[1])])

    def listed_labels(self, chosen: Mapping[str, str] | None = None) -> list[str]:
        """Paths of the files of listed labels, of all lists or of the one that is chosen for each run."""
        return [
            self.layout.run(run).listed(files.version, file)
            for run, files in self.listed
            if chosen is None or chosen.get(run) == files.version
            for file in files.owners.files
        ]

    def _paths(self, table: str, files: Sequence[tuple[str, str]]) -> list[str]:
        return [self.layout.run(run).file(table, file) for run, file in files]
