"""A labelling job from its beginning to its end, in this process: only Ray is left out."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.tagger import ImageCost
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.catalog.label_choice import LabelChoice
from pipeline.catalog.views import open_store
from pipeline.cluster.environment import LOCAL_RAY
from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import PoolPlan, plan_pool
from pipeline.dataflow import actor_pool
from pipeline.errors import (
    ClusterError,
    ModelError,
    RunLockedError,
    SourceError,
    StoreError,
    TagstreamError,
)
from pipeline.labelling import job as job_module
from pipeline.labelling import shard_flow
from pipeline.labelling.assignment import Assignment, OpenJob
from pipeline.labelling.job import LabelJob
from pipeline.labelling.pending import ShardPlan
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.labelling.retry import RetryJob, RetryRequest
from pipeline.labelling.source_status import compare_with_source
from pipeline.naming.name_list import NameList
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.settings.labelling import ComingNodes, LabelSettings
from pipeline.sources import parquet_reader
from pipeline.sources.originals import read_originals
from pipeline.sources.sample import Sample, fault
from pipeline.sources.shard import ColumnNames, Shard
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from pipeline.upkeep.verification import verify_run
from schemas import LABELS, LABELS_OF_VIEWS, content_hash
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import jpeg, sample_members, shard_bytes, tar_bytes, write_tars
from tests.fixtures.labelling import label_here, labelling_by, records_of
from tests.fixtures.recognizers.instant_labeler import InstantLabeler, InstantRecognizer
from tests.fixtures.servers.fake_hub import FakeHub
from tests.fixtures.stored.lists import add_list, name_list

pytestmark = pytest.mark.usefixtures("without_ray")


def test_all_shards_are_committed_and_the_record_says_so(label_request: LabelRequest) -> None:
    job = LabelJob(label_request)
    outcome = job.run()
    record = outcome.record
    assert (record.outcome, record.n_shards_committed, record.n_images, record.n_labelled) == ("done", 3, 6, 6)
    assert records_of(label_request) == [record]
    assert job.counts == {
        "shards": 3,
        "images": 6,
        "labelled": 6,
        "labels": record.n_labels,
        "flat": 0,
        "strange": 0,
        "shards_listed": 0,
        "listed": 0,
        "reused": 0,
        "near_duplicates": 0,
    }
    assert job.progress.snapshot().n_shards_done == 3


def test_a_job_with_nothing_to_do_starts_no_ray(label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    on_ray = replace(label_request, address=LOCAL_RAY)
    LabelJob(on_ray).run()
    monkeypatch.setattr(job_module, "joined_ray", lambda *_: pytest.fail("Ray was started"))
    record = LabelJob(on_ray).run().record
    assert (record.outcome, record.n_shards_done_before, record.n_shards_committed) == ("done", 3, 0)
    assert [kept.n_shards_committed for kept in records_of(label_request)] == [3, 0]


def test_a_small_job_joins_no_ray_and_tells_that_it_loaded_the_model_itself(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined, seen = [], []

    @contextlib.contextmanager
    def join(*_: Any) -> Iterator[None]:
        joined.append(job.request.address)
        yield

    def label(shards: list[Shard], pool: PoolPlan, *arguments: Any) -> Iterator[pa.Table]:
        seen.append((pool.in_process, job.progress.snapshot().phase))
        yield from label_here(shards, pool, *arguments)

    monkeypatch.setattr(job_module, "joined_ray", join)
    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label))
    for run, address in (("a", None), ("b", LOCAL_RAY)):
        job = LabelJob(replace(label_request, run=run, address=address))
        record = job.run().record
        assert record.workers_start_s > 0
        assert record.ray_start_s == 0 or address
    assert joined == [LOCAL_RAY]
    assert seen == [(True, "loading the model"), (False, "starting workers and loading the model")]


def test_a_small_job_imports_no_ray(tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 2, 3)
    program = (
        "import sys\n"
        "from tests.fixtures.labelling import label_with\n"
        "from tests.fixtures.recognizers.instant_labeler import InstantLabeler\n"
        "outcome = label_with('demo', *sys.argv[1:], labeler_class=InstantLabeler)\n"
        "print(outcome.record.n_labelled, *sorted({'ray', 'torch', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "source"), str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "6\n", done.stderr


def test_the_record_says_running_while_shards_are_labelled(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def label(*arguments: Any) -> Iterator[pa.Table]:
        seen.extend(record.outcome for record in records_of(label_request))
        yield from label_here(*arguments)

    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label))
    LabelJob(label_request).run()
    assert (seen, [record.outcome for record in records_of(label_request)]) == (["running"], ["done"])


def test_a_job_that_is_stopped_is_interrupted_and_the_next_one_labels_the_rest(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(shards: list[Shard], *arguments: Any) -> Iterator[pa.Table]:
        yield from label_here(shards[:1], *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(stop))
    with pytest.raises(KeyboardInterrupt):
        LabelJob(label_request).run()
    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label_here))
    LabelJob(label_request).run()
    assert [(record.outcome, record.n_images, record.message) for record in records_of(label_request)] == [
        ("interrupted", 2, ""),
        ("done", 4, ""),
    ]


def test_an_error_is_not_hidden_by_a_store_that_cannot_keep_the_record_of_it(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Iterator[pa.Table]:
        shutil.rmtree(label_request.store)
        Path(label_request.store).write_text("no folder")
        raise TagstreamError("an actor died")
        yield

    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(fail))
    with pytest.raises(TagstreamError, match=r"^an actor died$"):
        LabelJob(label_request).run()


def test_what_was_predicted_is_kept_beside_what_it_took(label_request: LabelRequest) -> None:
    asked = []

    def predict(*arguments: Any) -> float:
        asked.append(arguments)
        return 12.0

    settings = replace(label_request.settings, limit=5)
    assert LabelJob(replace(label_request, settings=settings, predict=predict)).run().record.predicted_s == 12.0
    ((run, plan, limit),) = asked
    assert (run.run, len(plan.pending), limit) == ("r", 3, 5)


@pytest.mark.parametrize(
    ("policy", "n_committed", "done"),
    [("relabel", 1, "they are labelled again"), ("keep", 0, "--changed relabel renews them")],
)
def test_shards_that_changed_are_named_with_what_is_done_about_them(
    label_request: LabelRequest, policy: str, n_committed: int, done: str
) -> None:
    LabelJob(label_request).run()
    (Path(label_request.source) / "00001.tar").write_bytes(shard_bytes(7, 5))
    outcome = LabelJob(replace(label_request, settings=replace(label_request.settings, changed=policy))).run()
    assert (outcome.record.n_shards_changed, outcome.record.n_shards_committed) == (1, n_committed)
    (note,) = outcome.notes
    assert note.startswith("1 shards changed at the source after they were committed (00001); ")
    assert note.endswith(done)


def test_a_run_that_another_job_holds_is_left_alone(
    label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, outcomes = replace(label_request, lock=True), []

    def label(*arguments: Any) -> Iterator[pa.Table]:
        with pytest.raises(RunLockedError):
            LabelJob(locked).run()
        outcomes.append("locked")
        yield from label_here(*arguments)

    monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label))
    assert LabelJob(locked).run().record.outcome == "done"
    assert (outcomes, LabelJob(locked).run().record.outcome) == (["locked"], "done")


def test_nodes_to_come_need_a_cluster(label_request: LabelRequest) -> None:
    settings = LabelSettings(nodes_to_come=ComingNodes(count=2, cpus=4))
    with pytest.raises(ClusterError, match="this machine will not grow; name a Ray cluster with --address"):
        LabelJob(replace(label_request, settings=settings)).run()


def test_an_assignment_decides_what_is_labelled_and_what_is_committed(label_request: LabelRequest) -> None:
    class First(Assignment):
        """The first shard, to be committed without its labels."""

        is_retry = True

        def fit_pool(self, pool: PoolPlan) -> PoolPlan:
            return replace(pool, batch_size=1)

        def plan(self, job: OpenJob) -> ShardPlan:
            job.notes.append("only one")
            return ShardPlan(job.source.shards[:1], len(job.source.shards), [], {})

        def on_rows(self, rows: pa.Table) -> None:
            tables.append(rows.num_rows)

        def complete(self, job: OpenJob, shard: Any, former: Any) -> Any:
            return replace(shard, labels=shard.labels.slice(0, 0))

    tables: list[int] = []
    outcome: LabelOutcome = LabelJob(label_request, First()).run()
    assert (tables, outcome.notes, outcome.record.n_retried) == ([1, 1], ["only one"], 2)
    run = Store(label_request.store).run("r")
    images, labels = run.read_shard("00000", run.committed()["00000"])
    assert (images.num_rows, labels.num_rows) == (2, 0)


@pytest.mark.parametrize("run", ["../run-1", "a/b", "-x", "größe", "x" * 101])
def test_a_run_name_that_cannot_be_part_of_a_path_is_refused_before_the_model_is_read(tmp_path: Path, run: str) -> None:
    write_tars(tmp_path / "source", 1, 1)
    request = LabelRequest(
        source=str(tmp_path / "source"), store=str(tmp_path / "store"), model=str(tmp_path / "no-model"), run=run
    )
    with pytest.raises(StoreError, match=f"run name {re.escape(repr(run))} cannot be used"):
        LabelJob(request).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


class TestSources:
    """What a job tells of its source."""

    def test_what_was_left_out_is_counted_and_told_once_as_new(self, label_request: LabelRequest) -> None:
        folder = Path(str(label_request.source))
        for name in ("a.mp4", "b.mp4", "c.heif2"):
            (folder / name).write_bytes(b"x")
        outcome = LabelJob(label_request).run()
        (folder / "d.mp4").write_bytes(b"x")
        LabelJob(label_request).run()
        assert outcome.skipped == {".mp4": 2, ".heif2": 1}
        assert [(record.n_skipped, record.n_skipped_new, record.skipped) for record in records_of(label_request)] == [
            (3, 3, "2 .mp4, 1 .heif2"),
            (4, 1, "3 .mp4, 1 .heif2"),
        ]

    def test_files_that_the_shell_names_are_one_run_that_goes_on_with_more_of_them(
        self, label_request: LabelRequest
    ) -> None:
        files = sorted(str(path) for path in Path(str(label_request.source)).iterdir())
        for n_files in (2, 3, 3):
            LabelJob(replace(label_request, source=tuple(files[:n_files]))).run()
        run = Store(label_request.store).run("r")
        record, jobs = run.read_record(), run.read_jobs()
        assert record is not None
        assert (record.addresses, [tuple(job.sources) for job in jobs]) == (tuple(files[:2]), [(), *[tuple(files)] * 2])
        assert [job.n_shards_committed for job in jobs] == [2, 1, 0]
        Path(files[0]).unlink()
        status = compare_with_source(run, record, run.committed())
        assert (status.open, status.missing, status.n_source) == ([], ["00000"], 2)

    def test_a_part_of_the_source_by_its_name_makes_nothing_of_the_rest_missing(
        self, label_request: LabelRequest
    ) -> None:
        LabelJob(label_request).run()
        LabelJob(replace(label_request, source=f"{label_request.source}/00000.tar")).run()
        run = Store(label_request.store).run("r")
        record = run.read_record()
        assert record is not None
        status = compare_with_source(run, record, run.committed())
        assert (status.n_source, status.open, status.missing) == (3, [], [])

    def test_a_link_whose_signature_was_concealed_is_not_said_to_be_gone(self, label_request: LabelRequest) -> None:
        request = replace(label_request, source="https://host/a.tar?***")
        with pytest.raises(SourceError, match="was given with a signature or a login, which no record keeps"):
            LabelJob(request).run()


class TestModelsOfTheHub:
    """The commit that a name means is looked up once."""

    def test_it_is_in_the_runs_record_and_given_to_the_workers(
        self, label_request: LabelRequest, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = []

        def label_and_keep(shards: list[Shard], pool: PoolPlan, config: LabelerConfig, *_: Any) -> Iterator[pa.Table]:
            given.append(config.model)
            return label_here(shards, pool, config)

        monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label_and_keep))
        # The hub's model has no processor.
        monkeypatch.setattr(Labeler, "measure_image_cost", staticmethod(lambda *_: ImageCost({"size": 56}, 600)))
        outcome = LabelJob(replace(label_request, model="org/tiny", run=None)).run()
        record = outcome.record
        assert not any("image tokens" in note for note in outcome.notes)
        run = Store(label_request.store).run(record.run).read_record()
        assert run is not None
        assert run.labelling["hub"]["image_options"] == {"size": 56}
        assert run.model == f"org/tiny@{hub.models['org/tiny'].revisions['main']}"
        assert given == [run.model]
        assert record.run == f"tiny-{run.fingerprint}"

    def test_one_that_makes_many_tokens_of_an_image_is_told_once(
        self, label_request: LabelRequest, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Labeler, "measure_image_cost", staticmethod(lambda *_: ImageCost({}, 3121)))
        notes = LabelJob(replace(label_request, model="org/tiny", run=None)).run().notes
        (note,) = [note for note in notes if "image tokens" in note]
        assert note.startswith("a photograph costs this model 3,121 image tokens")

    def test_one_whose_branches_copy_their_images_tokens_says_why_in_record_and_note(
        self, label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(InstantRecognizer, "why_copied", "the rule of its mask is unknown")
        outcome = LabelJob(label_request).run()
        (record,) = Store(label_request.store).run("r").read_jobs()
        assert record.why_copied == "the rule of its mask is unknown"
        (note,) = outcome.notes
        assert note.endswith("changed this model's labels: the rule of its mask is unknown")

    @pytest.mark.parametrize(("sees_squares", "view_tokens"), [(True, 0), (False, 0), (False, 9)])
    def test_one_that_takes_any_shape_ignores_views_and_says_so(
        self,
        label_request: LabelRequest,
        hub: FakeHub,
        monkeypatch: pytest.MonkeyPatch,
        sees_squares: bool,
        view_tokens: int,
    ) -> None:
        cost = ImageCost({}, 16, sees_squares)
        monkeypatch.setattr(Labeler, "measure_image_cost", staticmethod(lambda *_: cost))
        settings = replace(label_request.settings, views="whole", view_tokens=view_tokens)
        outcome = LabelJob(replace(label_request, model="org/tiny", run=None, settings=settings)).run()
        run = Store(label_request.store).run(outcome.record.run).read_record()
        assert run is not None
        assert ("views" in run.labelling) is sees_squares
        assert any("views and view_tokens do nothing" in note for note in outcome.notes) is not sees_squares

    def test_one_that_cannot_label_stops_the_job_before_anything_is_listed_written_or_started(
        self, label_request: LabelRequest, hub: FakeHub
    ) -> None:
        job = LabelJob(replace(label_request, source="/nowhere", model="org/moondream"))
        with pytest.raises(ModelError, match="org/moondream needs code from the hub"):
            job.run()
        assert job.progress.snapshot().phase == "finding the model"
        assert not Path(label_request.store).exists()


class TestParquet:
    """Columns of Parquet files, from the request to the originals."""

    @pytest.fixture
    def of_parquet(self, tmp_path: Path) -> LabelRequest:
        """Four images in two columns, under two keys."""
        (tmp_path / "source").mkdir()
        images = pa.array([jpeg(number) for number in range(4)])
        table = pa.table({"image": images, "scan": images[::-1], "key": ["x", "y", "x", "y"]})
        pq.write_table(table, tmp_path / "source" / "a.parquet")
        settings = LabelSettings(top_k=5, batch_size=8)
        source, store = str(tmp_path / "source"), str(tmp_path / "store")
        return LabelRequest(source=source, store=store, model="demo", run="r", settings=settings)

    def images(self, request: LabelRequest) -> list[dict[str, Any]]:
        images = Store(request.store).run("r").read_shard("a", Store(request.store).run("r").committed()["a"])[0]
        return images.to_pylist()

    def test_columns_that_are_asked_for_are_labelled_and_found_again(self, of_parquet: LabelRequest) -> None:
        outcome = LabelJob(replace(of_parquet, columns=ColumnNames(image="scan"))).run()
        images = self.images(of_parquet)
        assert [image["content_hash"] for image in images] == [content_hash(jpeg(number)) for number in (3, 2, 1, 0)]
        record = Store(of_parquet.store).run("r").read_record()
        assert record is not None
        assert [original.data for original in read_originals(record, images)] == [
            jpeg(number) for number in (3, 2, 1, 0)
        ]
        assert outcome.record.n_labelled == 4

    def test_a_file_without_images_fails_before_anything_is_started(
        self, of_parquet: LabelRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(job_module, "joined_ray", lambda *_: pytest.fail("Ray was started"))
        with pytest.raises(
            SourceError, match=r"has no column img \(--image-column\); it has image: binary, scan: binary"
        ):
            LabelJob(replace(of_parquet, columns=ColumnNames(image="img"))).run()
        # Nor is there a run that would keep the wrong column.
        assert not Path(of_parquet.store).exists()

    def test_a_retry_labels_what_was_rejected_for_another_images_key(
        self, of_parquet: LabelRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class FormerKeys(parquet_reader._Keys):
            def made_unique(self, sample: Sample) -> Sample:
                unique = super().made_unique(sample)
                return sample if unique is sample else fault(sample.key, "DuplicateKey", "left out")

        monkeypatch.setattr(parquet_reader, "_Keys", FormerKeys)
        LabelJob(of_parquet).run()
        former = self.images(of_parquet)
        monkeypatch.undo()
        monkeypatch.setattr(job_module, "joined_ray", lambda *_: contextlib.nullcontext())
        monkeypatch.setattr(shard_flow, "open_labelers", labelling_by(label_here))
        RetryJob(RetryRequest(store=of_parquet.store, error="DuplicateKey", labeler_class=InstantLabeler)).run()
        images = self.images(of_parquet)

        assert [image["error"] for image in former] == [None, None, "DuplicateKey", "DuplicateKey"]
        assert [image["status"] for image in images] == ["labelled"] * 4
        same = ("image_id", "key", "index")
        assert [[image[name] for name in same] for image in images] == [
            [image[name] for name in same] for image in former
        ]


class TestViews:
    """Runs that label several squares of an image."""

    @staticmethod
    def shown(request: LabelRequest) -> list[tuple[Any, ...]]:
        columns = 'run, shard, "index", rank, label, score, n_tokens, "view"'
        return open_store(request.store).sql(f"SELECT {columns} FROM labels ORDER BY ALL").fetchall()

    @pytest.fixture
    def of_squares(self, label_request: LabelRequest) -> LabelRequest:
        """Each of its images, which are 96 x 72, has two squares."""
        return replace(label_request, settings=replace(label_request.settings, views="whole"))

    def test_labels_tell_their_square_and_other_runs_of_the_store_have_none(
        self, label_request: LabelRequest, of_squares: LabelRequest
    ) -> None:
        LabelJob(of_squares).run()
        LabelJob(replace(label_request, run="centre")).run()
        store = Store(label_request.store)
        assert {(row[0], row[-1]) for row in self.shown(label_request)} == {("r", 0), ("r", 1), ("centre", None)}
        names = {
            run: pq.read_schema(next(Path(label_request.store, "labels", f"run={run}").glob("*.parquet"))).names
            for run in store.run_names()
        }
        assert names == {"r": LABELS_OF_VIEWS.names, "centre": LABELS.names}

    def test_they_are_compacted_verified_and_tried_again_as_others_are(self, of_squares: LabelRequest) -> None:
        small = replace(of_squares, settings=replace(of_squares.settings, max_image_pixels=1))
        LabelJob(small).run()
        given = {"max_image_pixels": 1 << 20, "batch_size": 8}
        RetryJob(RetryRequest(store=of_squares.store, given=given, labeler_class=InstantLabeler)).run()
        rows, store = self.shown(of_squares), Store(of_squares.store)
        assert {row[-1] for row in rows} == {0, 1}
        fresh = replace(of_squares, store=f"{of_squares.store}-fresh")
        LabelJob(fresh).run()
        assert self.shown(fresh) == rows
        compact_run(store.run("r"), read_vocabulary(None), lambda done, total: None)
        assert self.shown(of_squares) == rows
        assert verify_run(store.run("r")).findings == []

    def test_a_job_in_two_parts_labels_as_one_does(self, of_squares: LabelRequest) -> None:
        LabelJob(replace(of_squares, settings=replace(of_squares.settings, limit=1))).run()
        LabelJob(of_squares).run()
        fresh = replace(of_squares, store=f"{of_squares.store}-fresh")
        LabelJob(fresh).run()
        assert self.shown(fresh) == self.shown(of_squares)


class TestLists:
    """Jobs with lists of names: with the labels, later, changed, and beside all else that happens to shards."""

    ANIMALS, FLOWERS = name_list("animals", "cat", "dog", "fox", top=2), name_list("flowers", "rose")

    @staticmethod
    def shown(request: LabelRequest, table: str = "listed_labels") -> list[tuple[Any, ...]]:
        """Rows without ids of commits: whether they came at once or later must not matter."""
        return open_store(request.store).sql(f"SELECT * FROM {table} ORDER BY ALL").fetchall()

    def undisturbed(self, request: LabelRequest, tmp_path: Path, *lists: NameList) -> list[tuple[Any, ...]]:
        """The listed labels of a job that has all from the start."""
        fresh = replace(request, store=str(tmp_path / "undisturbed"), lists=lists)
        shutil.rmtree(fresh.store, ignore_errors=True)
        LabelJob(fresh).run()
        return self.shown(fresh)

    def test_every_image_keeps_the_best_names_of_the_list_in_the_order_of_their_scores(
        self, label_request: LabelRequest
    ) -> None:
        record = LabelJob(replace(label_request, lists=(self.ANIMALS,))).run().record
        found = self.shown(label_request)
        assert (record.lists, record.n_listed, record.n_shards_listed, len(found)) == (
            [self.ANIMALS.version],
            12,
            0,
            12,
        )
        by_image: dict[int, list[tuple[int, float]]] = {}
        for image_id, _, _, rank, label, score, version, run in found:
            assert (label in self.ANIMALS.names, run, version) == (True, "r", self.ANIMALS.version)
            by_image.setdefault(image_id, []).append((rank, score))
        for ranked in by_image.values():
            assert [rank for rank, _ in sorted(ranked)] == [1, 2]
            assert ranked == sorted(ranked, key=lambda row: -row[1])

    def test_open_labels_do_not_change_with_a_list(self, label_request: LabelRequest, tmp_path: Path) -> None:
        LabelJob(label_request).run()
        listed = replace(label_request, store=str(tmp_path / "listed"), lists=(self.ANIMALS,))
        LabelJob(listed).run()
        for table in ("labels", "images"):
            assert self.shown(listed, table) == self.shown(label_request, table)

    def test_a_run_that_is_labelled_gets_a_list_later_and_its_files_stay(
        self, label_request: LabelRequest, tmp_path: Path
    ) -> None:
        LabelJob(label_request).run()
        before = {path: path.read_bytes() for path in Path(label_request.store).glob("[il]*/*/*.parquet")}
        record = LabelJob(replace(label_request, lists=(self.ANIMALS,))).run().record
        assert (record.n_shards_committed, record.n_shards_listed, record.n_listed) == (0, 3, 12)
        assert {path: path.read_bytes() for path in before} == before
        assert self.shown(label_request) == self.undisturbed(label_request, tmp_path, self.ANIMALS)
        # The same list again has nothing to do.
        assert LabelJob(replace(label_request, lists=(self.ANIMALS,))).run().record.n_shards_listed == 0

    def test_a_changed_list_is_another_one_beside_the_first(self, label_request: LabelRequest, tmp_path: Path) -> None:
        changed = replace_list(self.ANIMALS, "cat", "dog", "owl")
        for of_list in (self.ANIMALS, changed):
            LabelJob(replace(label_request, lists=(of_list,))).run()
        assert self.shown(label_request) == self.undisturbed(label_request, tmp_path, self.ANIMALS, changed)
        latest = open_store(label_request.store, labels=LabelChoice("listed")).sql("SELECT DISTINCT list FROM labels")
        assert latest.fetchall() == [(changed.version,)]

    def test_a_job_that_is_stopped_while_it_adds_a_list_goes_on_from_there(
        self, label_request: LabelRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        LabelJob(label_request).run()

        def stop(shards: list[Shard], *arguments: Any) -> Iterator[pa.Table]:
            yield from label_here(shards[:1], *arguments)
            raise KeyboardInterrupt

        listed = replace(label_request, lists=(self.ANIMALS,))
        with monkeypatch.context() as patched:
            patched.setattr(shard_flow, "open_labelers", labelling_by(stop))
            with pytest.raises(KeyboardInterrupt):
                LabelJob(listed).run()
        assert LabelJob(listed).run().record.n_shards_listed == 2
        assert self.shown(label_request) == self.undisturbed(label_request, tmp_path, self.ANIMALS)

    def test_new_shards_and_shards_without_the_list_are_done_by_one_job(
        self, label_request: LabelRequest, tmp_path: Path
    ) -> None:
        LabelJob(label_request).run()
        (tmp_path / "source" / "new.tar").write_bytes(shard_bytes(50, 2))
        record = LabelJob(replace(label_request, lists=(self.ANIMALS,))).run().record
        assert (record.n_shards_committed, record.n_shards_listed, record.n_listed) == (1, 3, 16)
        assert self.shown(label_request) == self.undisturbed(label_request, tmp_path, self.ANIMALS)

    @pytest.mark.parametrize("with_list", [True, False])
    def test_a_shard_that_is_labelled_again_never_shows_scores_of_its_former_images(
        self, label_request: LabelRequest, tmp_path: Path, with_list: bool
    ) -> None:
        listed = replace(label_request, lists=(self.ANIMALS,))
        LabelJob(listed).run()
        change_shard(tmp_path / "source" / "00001.tar")
        settings = replace(label_request.settings, changed="relabel")
        again = replace(listed if with_list else label_request, settings=settings)
        outcome = LabelJob(again).run()
        assert any("get no scores" in note for note in outcome.notes) != with_list
        whole = self.undisturbed(label_request, tmp_path, self.ANIMALS)
        assert self.shown(label_request) == [row for row in whole if with_list or row[1] != "00001"]
        assert not list(Path(label_request.store).glob("listed/*/*/00001.parquet"))
        LabelJob(listed).run()
        assert self.shown(label_request) == whole

    def test_images_that_are_others_now_get_no_scores(self, label_request: LabelRequest, tmp_path: Path) -> None:
        LabelJob(label_request).run()
        # As an object store that tells no versions.
        change_shard(tmp_path / "source" / "00001.tar", keeps_version=True)
        outcome = LabelJob(replace(label_request, lists=(self.ANIMALS,))).run()
        assert outcome.notes == [
            "2 labelled images are gone, others now, or over a limit of this job, and got no scores for the names"
        ]
        assert {row[1] for row in self.shown(label_request)} == {"00000", "00002"}

    def test_shards_that_changed_keep_their_labels_and_lack_the_list(
        self, label_request: LabelRequest, tmp_path: Path
    ) -> None:
        LabelJob(label_request).run()
        change_shard(tmp_path / "source" / "00001.tar")
        record = LabelJob(replace(label_request, lists=(self.ANIMALS,))).run().record
        assert (record.n_shards_changed, record.n_shards_listed) == (1, 2)

    def test_samples_that_are_tried_again_get_scores_of_every_list_that_their_shard_has(
        self, label_request: LabelRequest, tmp_path: Path
    ) -> None:
        small = replace(label_request.settings, max_image_pixels=1)
        LabelJob(replace(label_request, lists=(self.ANIMALS,), settings=small)).run()
        add_list(Store(label_request.store).run("r"), self.FLOWERS, [], ["00000"])
        assert self.shown(label_request) == []
        given = {"max_image_pixels": 1 << 20, "batch_size": 8}
        RetryJob(RetryRequest(store=label_request.store, given=given, labeler_class=InstantLabeler)).run()
        whole = self.undisturbed(label_request, tmp_path, self.ANIMALS, self.FLOWERS)
        # The other shards had no scores of the flowers, and go on lacking them.
        assert self.shown(label_request) == [
            row for row in whole if row[-2] == self.ANIMALS.version or row[1] == "00000"
        ]

    def test_a_name_that_cannot_be_a_label_stops_the_job_before_it_makes_anything(
        self, label_request: LabelRequest
    ) -> None:
        request = replace(label_request, lists=(name_list("animals", "dog", "a, b"),), labeler_class=Labeler)
        with pytest.raises(TagstreamError, match=r"^the name 'a, b' is read as .* \(list animals-"):
            LabelJob(request).run()
        assert not Path(label_request.store).exists()


def replace_list(of_list: NameList, *names: str) -> NameList:
    return replace(of_list, names={name: (name,) for name in names})


def change_shard(path: Path, *, keeps_version: bool = False) -> None:
    """Puts other images under the keys of the second shard."""
    before = path.stat()
    path.write_bytes(tar_bytes(member for key in (2, 3) for member in sample_members(f"{key:06d}", key + 500)))
    if keeps_version:
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class TestBatchSize:
    """A job on GPUs that has much to label."""

    @pytest.fixture
    def found(self, label_request: LabelRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Sizes that searches find, from the last to the first."""
        sizes = [7, 3]
        pool = plan_pool([Node(8, 1)], LabelSettings())
        monkeypatch.setattr(job_module, "_plan_pool", lambda *_: pool)
        monkeypatch.setattr(Assignment, "n_bytes", lambda *_: 8 << 30)
        monkeypatch.setattr(actor_pool, "find_batch_size", lambda *_: sizes.pop())
        return sizes

    def test_is_found_once_a_run_and_kept_before_the_first_image(
        self, label_request: LabelRequest, found: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[int, int]] = []

        def label(shards: list[Shard], pool: PoolPlan, *arguments: Any) -> Iterator[pa.Table]:
            seen.append((pool.batch_size, records_of(label_request)[-1].workers["batch_size"]))
            yield from itertools.islice(label_here(shards, pool, *arguments), len(seen))
            raise KeyboardInterrupt

        request = replace(label_request, settings=LabelSettings(top_k=5))
        with monkeypatch.context() as stopped:
            stopped.setattr(shard_flow, "open_labelers", labelling_by(label))
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt):
                    LabelJob(request).run()
        assert (seen, found) == ([(3, 3), (3, 3)], [7])
        assert LabelJob(request).run().record.workers["batch_size"] == 3
        assert [record.outcome for record in records_of(request)] == ["interrupted", "interrupted", "done"]

    def test_that_is_set_is_taken_without_a_search(self, label_request: LabelRequest, found: list[int]) -> None:
        LabelJob(label_request).run()
        assert found == [7, 3]
