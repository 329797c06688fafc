"""Rejected samples tried again: only they are read and labelled. Their shards are committed anew, with all other rows.

A retry helps where another limit, another version of a library or a mended file lets a sample through. A sample that
does not come back, or that is another one now, stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.actor.labeler import Labeler
from pipeline.catalog.connection import query_rows
from pipeline.catalog.views import open_store
from pipeline.labelling.assembly import WholeShard
from pipeline.labelling.assignment import Assignment, OpenJob
from pipeline.labelling.job import LabelJob
from pipeline.labelling.listing import move_rows, no_listed, plan_lists
from pipeline.labelling.pending import ShardPlan, find_changed, find_missing, run_shards
from pipeline.labelling.request import LabelRequest
from pipeline.labelling.source_status import known_addresses
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import LabelSettings, full_labelling
from pipeline.settings.toml_file import read_settings
from pipeline.sources.shard import ColumnNames, Shard
from pipeline.store.lists import ListedFiles, RunLists
from pipeline.store.ownership import CommittedShard
from pipeline.store.run import Run
from pipeline.store.run_choice import choose_run_to_change
from pipeline.store.store import Store
from schemas import LABELS, LABELS_OF_VIEWS, LISTED, JobRecord, RunRecord, images_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRequest:
    """One invocation of `tagstream retry`."""

    store: str
    """Local folder or URL of the store."""
    run: str | None = None
    """The run, as `choose_run_to_change` takes it; None takes the store's only run."""
    error: str | None = None
    """Retry samples that were rejected with an error of this class; the default is any class."""
    stage: str | None = None
    """Retry samples that were rejected at this stage; the default is any stage."""
    given: Mapping[str, Any] | None = None
    """Settings that do not decide the labels, such as limits and batch size; the others are the run's own."""
    origin: str = "--config"
    """Where `given` comes from, for messages."""
    address: str | None = None
    """As `LabelRequest.address`."""
    verbose: bool = False
    """Show Ray's own log."""
    command: str = ""
    """The command line, for the job's record; the default is for jobs that no command line asked for."""
    lock: bool = False
    """Hold the run's lock, and end at once where another job holds it; by default jobs may share a run."""
    labeler_class: type[Labeler] = Labeler
    """Class of the labelling actors."""


class RetryJob(LabelJob):
    """Labels the rejected samples of a run once more."""

    def __init__(self, request: RetryRequest) -> None:
        store = Store(request.store)
        record = choose_run_to_change(store, request.run).record
        jobs = store.run(record.run).read_jobs()
        super().__init__(_label_request(record, jobs, request), RetryAssignment(request.error, request.stage))


class RetryAssignment(Assignment):
    """The rejected samples of a run, by their error class and their stage; None stands for any."""

    is_retry = True

    def __init__(self, error: str | None, stage: str | None) -> None:
        self._error, self._stage = error, stage
        self._wanted: dict[str, tuple[int, ...]] = {}
        """Indexes of the samples to label, by name of their shard."""
        self._listed: dict[str, ListedFiles] = {}
        """Files of the run's lists."""

    def plan(self, job: OpenJob) -> ShardPlan:
        """The shards with such samples, each reduced to them."""
        rejected = _find_rejected(job.run, self._error, self._stage)
        committed = job.run.committed()
        shards = run_shards(job.run, job.source, job.record.folder_buckets, committed)
        by_name = {shard.name: shard for shard in shards}
        found = [by_name[name] for name in rejected if name in by_name]
        # A folder's files are looked up one by one: other files of the shard may change.
        in_files = [shard for shard in found if shard.is_file]
        changed = find_changed(job.run, in_files, committed)
        reduced = [shard.reduced(rejected[shard.name]) for shard in found if shard not in changed]
        pending = [shard for shard in reduced if shard.wanted]
        job.notes.extend(_left_out_notes(len(rejected) - len(found), changed, job.source.given))
        self._wanted = {shard.name: shard.wanted for shard in pending if shard.wanted}
        replaced = {shard.name: committed[shard.name] for shard in pending}
        lists = plan_lists(job.run, [of_list.version for of_list in job.lists], [], committed)
        self._listed = {version: RunLists(job.run).files(version, committed) for version in lists.asked}
        return ShardPlan(pending, len(shards), changed, replaced, len(find_missing(shards, committed)), lists)

    def complete(self, job: OpenJob, shard: WholeShard, former: CommittedShard | None) -> WholeShard | None:
        """The committed shard, in which the rows that came back replace those of the same samples."""
        assert former is not None
        version = job.run.read_version(former)
        is_file = not job.record.folder_buckets
        if is_file and (version.size, version.etag) != (shard.source_size, shard.source_etag):
            job.notes.append(f"shard {shard.name} changed while it was read, and stays as it was")
            return None
        images, labels = job.run.read_shard(shard.name, former)
        wanted = self._wanted[shard.name]
        shard = replace(shard, images=_under_former_keys(images, shard.images, wanted))
        merged = merge_rows((images, labels), (shard.images, shard.labels), wanted)
        return replace(
            shard,
            images=merged[0],
            labels=merged[1],
            source_size=version.size,
            source_etag=version.etag,
            listed=self._merge_listed(job.run, shard, images, wanted),
        )

    def _merge_listed(
        self, run: Run, shard: WholeShard, images: pa.Table, wanted: tuple[int, ...]
    ) -> dict[str, pa.Table | None]:
        """The shard's listed labels of every list that it has any of; of others it goes on lacking them."""
        former = _former_rows(images, shard.images, wanted)
        merged: dict[str, pa.Table | None] = {}
        for version, files in self._listed.items():
            stored = RunLists(run).read(files, shard.name)
            again = shard.listed.get(version, no_listed())
            merged[version] = None if stored is None else _in_order(_replace_rows(stored, again, former, LISTED))
        return merged


def merge_rows(
    stored: tuple[pa.Table, pa.Table], again: tuple[pa.Table, pa.Table], wanted: tuple[int, ...]
) -> tuple[pa.Table, pa.Table]:
    """A shard's images and labels, in which samples that were labelled again replace their former rows.

    A sample whose key is another one than that of its former row is left out: the row would get a stranger's labels.

    Args:
        stored: images and labels as they are committed.
        again: images and labels of the samples that came back. Their `index` is a position in `wanted`.
        wanted: index in the shard of each sample that was labelled again.
    """
    former = _former_rows(stored[0], again[0], wanted)
    of_images = images_schema(stored[0].column_names)
    of_labels = LABELS_OF_VIEWS if "view" in stored[1].column_names else LABELS
    images = _replace_rows(stored[0], again[0], former, of_images).sort_by([("index", "ascending")])
    return images.combine_chunks(), _in_order(_replace_rows(stored[1], again[1], former, of_labels))


def _in_order(labels: pa.Table) -> pa.Table:
    return labels.sort_by([("index", "ascending"), ("rank", "ascending")]).combine_chunks()


def _under_former_keys(stored: pa.Table, again: pa.Table, wanted: tuple[int, ...]) -> pa.Table:
    """Images that came back, under the key that they were rejected by for being another image's, too.

    Today such an image gets a key of its own. Its row has an id of the former key already.
    """
    rows = stored.filter(pc.equal(stored["error"], "DuplicateKey")).select(["index", "key"]).to_pylist()
    repeated = {row["index"]: row["key"] for row in rows}
    keys = []
    for index, key in zip(again["index"].to_pylist(), again["key"].to_pylist(), strict=True):
        former = repeated.get(wanted[index])
        keys.append(former if former is not None and key.startswith(f"{former}~") else key)
    return again.set_column(again.column_names.index("key"), again.schema.field("key"), pa.array(keys, pa.string()))


def _former_rows(stored: pa.Table, again: pa.Table, wanted: tuple[int, ...]) -> dict[int, dict[str, Any]]:
    """index, image_id and key that each image has in the store, by the `index` with which it came back."""
    by_index = {row["index"]: row for row in stored.select(["index", "image_id", "key"]).to_pylist()}
    former = {}
    for index, key in zip(again["index"].to_pylist(), again["key"].to_pylist(), strict=True):
        row = by_index.get(wanted[index])
        if row is not None and row["key"] == key:
            former[index] = row
    return former


def _replace_rows(stored: pa.Table, again: pa.Table, former: dict[int, dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of images or of labels, stored ones replaced by those of the same image that came back; in no order."""
    replaced = pa.array([row["index"] for row in former.values()], pa.int32())
    kept = stored.filter(pc.invert(pc.is_in(stored["index"], replaced)))
    return pa.concat_tables([kept.cast(schema), move_rows(again, former, schema)])


def _find_rejected(run: Run, error: str | None, stage: str | None) -> dict[str, list[tuple[int, str]]]:
    """Index and key of the run's rejected samples, by name of their shard."""
    rows = query_rows(open_store(run.store_url), "rejected_samples", {"run": run.name, "error": error, "stage": stage})
    found: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        found.setdefault(row["shard"], []).append((row["index"], row["key"]))
    return found


def _left_out_notes(n_gone: int, changed: list[Shard], source: str) -> list[str]:
    notes = []
    if n_gone:
        notes.append(f"{n_gone} shards with rejected samples are no longer in {source}")
    if changed:
        notes.append(
            f"{len(changed)} shards changed at the source after they were committed ({changed[0].name}, ...) and "
            "are left out; `tagstream label` with --changed relabel labels them whole"
        )
    return notes


def _label_request(record: RunRecord, jobs: Sequence[JobRecord], request: RetryRequest) -> LabelRequest:
    """The labelling job that the run's own samples were labelled by."""
    settings = read_settings(
        LabelSettings, {**full_labelling(record.labelling), **(request.given or {})}, request.origin
    )
    return LabelRequest(
        source=known_addresses(record, jobs),
        store=request.store,
        model=record.model,
        settings=settings,
        columns=ColumnNames(**record.columns),
        run=record.run,
        lists=tuple(map(NameList.of, RunLists(Store(request.store).run(record.run)).records())),
        address=request.address,
        verbose=request.verbose,
        command=request.command,
        lock=request.lock,
        labeler_class=request.labeler_class,
    )
