"""Rejected samples tried again: only they are read and labelled, and their shards committed anew with all other rows.

For what another limit, another version of a library or a mended file lets through. What does not come back, or comes
back as another sample, stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.connection import query_rows
from pipeline.catalog.views import open_store
from pipeline.dataflow.labeler import Labeler
from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.job import LabelJob
from pipeline.labelling.pending import ShardPlan, find_changed, find_missing, run_shards
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from pipeline.settings.toml_file import read_settings
from pipeline.sources.shard import Shard, Source
from pipeline.store.ownership import CommittedShard
from pipeline.store.store import Store
from schemas import IMAGES, LABELS, RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRequest:
    """One invocation of `tagstream retry`."""

    store: str
    run: str | None = None
    """Default: the store's only run."""
    error: str | None = None
    """Only samples that were rejected with an error of this class."""
    stage: str | None = None
    """Only samples that were rejected at this stage."""
    given: Mapping[str, Any] | None = None
    """Settings that are not the run's own: limits, batch size."""
    origin: str = "--config"
    """Where those come from, for messages."""
    address: str | None = None
    verbose: bool = False
    command: str = ""
    lock: bool = False
    labeler_class: type[Labeler] = Labeler


class RetryJob(LabelJob):
    """Labels the rejected samples of a run once more."""

    def __init__(self, request: RetryRequest) -> None:
        self._retry = request
        super().__init__(_label_request(Store(request.store).find_run(request.run), request))
        self._wanted: dict[str, tuple[int, ...]] = {}

    def plan(self, store: Store, source: Source) -> ShardPlan:
        """Shards with rejected samples that were asked for, each with the places of those."""
        chosen = self._chosen(store)
        shards, committed = run_shards(store.run(self.record.run), source, self.record.folder_buckets)
        by_name = {shard.name: shard for shard in shards}
        found = [by_name[name] for name in chosen if name in by_name]
        # A folder's files are looked up one by one: other files of the shard may change.
        in_files = [shard for shard in found if shard.kind != "folder"]
        changed = find_changed(store.run(self.record.run), in_files, committed)
        pending = [_only(shard, chosen[shard.name]) for shard in found if shard not in changed]
        pending = [shard for shard in pending if shard.wanted]
        if gone := len(chosen) - len(found):
            self.notes.append(f"{gone} shards with rejected samples are no longer in {source.given}")
        if changed:
            self.notes.append(
                f"{len(changed)} shards changed at the source after they were committed ({changed[0].name}, ...) and "
                "are left out; `tagstream label` with --changed relabel labels them whole"
            )
        self._wanted = {shard.name: shard.wanted for shard in pending if shard.wanted}
        replaced = {shard.name: committed[shard.name] for shard in pending}
        return ShardPlan(pending, len(shards), changed, replaced, len(find_missing(shards, committed)))

    def completed(self, store: Store, shard: WholeShard, replaces: CommittedShard | None) -> WholeShard | None:
        """The committed shard with the rows that came back in the place of theirs."""
        assert replaces is not None
        version = store.run(self.record.run).read_version(replaces)
        is_file = not self.record.folder_buckets
        if is_file and (version.size, version.etag) != (shard.source_size, shard.source_etag):
            self.notes.append(f"shard {shard.name} changed while it was read, and stays as it was")
            return None
        images, labels = store.run(self.record.run).read_shard(shard.name, replaces)
        merged = merge_rows((images, labels), (shard.images, shard.labels), self._wanted[shard.name])
        return replace(shard, images=merged[0], labels=merged[1], source_size=version.size, source_etag=version.etag)

    @property
    def n_retried(self) -> int:
        return self._counts["images"]

    def _chosen(self, store: Store) -> dict[str, list[tuple[int, str]]]:
        """Place and key of the samples to try again, by shard."""
        asked = {"run": self.record.run, "error": self._retry.error, "stage": self._retry.stage}
        rows = query_rows(open_store(store.url), "rejected_samples", asked)
        chosen: dict[str, list[tuple[int, str]]] = {}
        for row in rows:
            chosen.setdefault(row["shard"], []).append((row["index"], row["key"]))
        return chosen


def merge_rows(
    stored: tuple[pa.Table, pa.Table], again: tuple[pa.Table, pa.Table], places: tuple[int, ...]
) -> tuple[pa.Table, pa.Table]:
    """Images and labels of a shard with the rows of samples that were labelled again.

    Args:
        stored: images and labels as they are committed.
        again: images and labels of the samples that came back; their `index` counts `places`.
        places: index in the shard of each sample that was asked for.
    """
    (images, labels), (new_images, new_labels) = stored, again
    ids = dict(zip(images["index"].to_pylist(), images["image_id"].to_pylist(), strict=True))
    keys = dict(zip(images["index"].to_pylist(), images["key"].to_pylist(), strict=True))
    came = dict(zip(new_images["index"].to_pylist(), new_images["key"].to_pylist(), strict=True))
    # At the place of one sample now another: the row would get a stranger's labels.
    same = [number for number, key in came.items() if keys.get(places[number]) == key]
    kept_places = pa.array([places[number] for number in same], pa.int32())

    def moved(table: pa.Table) -> pa.Table:
        table = table.filter(pc.is_in(table["index"], pa.array(same, pa.int32())))
        indexes = [places[number] for number in table["index"].to_pylist()]
        columns = {
            **{name: table[name] for name in table.column_names},
            "index": pa.array(indexes, pa.int32()),
            "image_id": pa.array([ids[index] for index in indexes], pa.int64()),
        }
        return pa.table(columns, schema=table.schema)

    def merged(table: pa.Table, other: pa.Table, schema: pa.Schema, order: list[tuple[str, str]]) -> pa.Table:
        kept = table.filter(pc.invert(pc.is_in(table["index"], kept_places)))
        return pa.concat_tables([kept.cast(schema), moved(other).cast(schema)]).sort_by(order).combine_chunks()

    by_index, by_rank = ("index", "ascending"), ("rank", "ascending")
    return merged(images, new_images, IMAGES, [by_index]), merged(labels, new_labels, LABELS, [by_index, by_rank])


def _label_request(record: RunRecord, request: RetryRequest) -> LabelRequest:
    """The labelling job that the run's own samples were labelled by."""
    settings = read_settings(LabelSettings, {**record.labelling, **(request.given or {})}, request.origin)
    return LabelRequest(
        source=record.source,
        store=request.store,
        model=record.model,
        settings=settings,
        run=record.run,
        address=request.address,
        verbose=request.verbose,
        command=request.command,
        lock=request.lock,
        labeler_class=request.labeler_class,
    )


def _only(shard: Shard, samples: list[tuple[int, str]]) -> Shard:
    """The shard with no other samples than these, given by place and key."""
    if shard.kind != "folder":
        return replace(shard, wanted=tuple(index for index, _ in samples))
    files = {file.key: file for file in shard.files}
    present = [(index, files[key]) for index, key in samples if key in files]
    return replace(shard, wanted=tuple(index for index, _ in present), files=tuple(file for _, file in present))
