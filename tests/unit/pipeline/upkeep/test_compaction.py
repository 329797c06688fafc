"""Compaction: fewer files, the same rows, whatever else happens meanwhile."""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.catalog.views import open_store
from pipeline.errors import StoreError
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.ownership import file_name, is_compacted
from pipeline.store.parquet_file import read_file
from pipeline.store.store import Store
from pipeline.upkeep import compaction as compaction_module
from pipeline.upkeep import sorted_files
from pipeline.upkeep.compaction import CompactionOutcome, compact_run
from schemas import IMAGES, LABELS
from tests.fixtures.interruption import Interruption
from tests.fixtures.stored.tables import commit_judged, commit_shard, run_record, shard_tables

RUN = "run-1"
SHARDS = ["a/0", "a/1", "b", "größe", "x" * 250]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of five shards on the local disk."""
    return fill(Store(str(tmp_path / "store")))


# SeaweedFS is asked the same in integration/test_object_store.py.
@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.long)])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same, on the local disk and on S3: for what storages do in ways of their own."""
    url = str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return fill(Store(f"{url}/store"))


def fill(store: Store) -> Store:
    store.create_run(run_record(RUN))
    for number, shard in enumerate(SHARDS):
        commit_shard(store, RUN, shard, n_rows=3 + number, n_labels=number, size=number, etag=f"v{number}")
    return store


def compact(store: Store) -> CompactionOutcome:
    return compact_run(store.run(RUN), read_vocabulary(None), lambda done, total: None)


def all_rows(store: Store) -> dict[str, list[Any]]:
    """Every row of the store, in an order of its own."""
    connection = open_store(store.url)
    return {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
        for table in ("images", "stored_labels")
    }


def file_names(store: Store, table: str) -> list[str]:
    return sorted(Path(path).name for path in store.filesystem.ls(f"{store.root}/{table}/run={RUN}", detail=False))


class TestRows:
    """What is in the files."""

    def test_the_rows_stay_the_same_and_the_files_become_one(self, any_store: Store) -> None:
        before = all_rows(any_store)
        outcome = compact(any_store)
        assert all_rows(any_store) == before
        assert (outcome.n_shards, outcome.n_files_before, outcome.n_files_after) == (5, 5, 1)
        assert file_names(any_store, "images") == file_names(any_store, "labels")
        assert [is_compacted(name) for name in file_names(any_store, "images")] == [True]

    def test_a_label_lies_in_one_place_the_highest_scores_first(self, tmp_path: Path) -> None:
        rng = random.Random(2)
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        # Of few scores, so that some are equal.
        draw = {
            shard: [{"truth": None, "labels": [(word, rng.randrange(8) / 8) for word in "cab"]} for _ in range(10)]
            for shard in SHARDS
        }
        commit_judged(store, RUN, draw)
        compact(store)
        (name,) = store.run(RUN).list_labels()
        table, _ = read_file(store.filesystem, store.layout.run(RUN).labels(name))
        found = [(row["label"], -row["score"], row["image_id"]) for row in table.to_pylist()]
        assert len(set(found)) == 150
        assert found == sorted(found)

    def test_the_files_have_the_schemas_of_the_tables_and_say_which_run_made_them(self, store: Store) -> None:
        compact(store)
        (name,) = store.run(RUN).list_labels()
        for path, schema in (
            (store.layout.run(RUN).images(name), IMAGES),
            (store.layout.run(RUN).labels(name), LABELS),
        ):
            table, described = read_file(store.filesystem, path)
            assert table.schema.equals(schema, check_metadata=False)
            assert described["fingerprint"] == "f"

    def test_damage_is_not_written_anew_as_if_it_were_whole(self, tmp_path: Path) -> None:
        store = fill(Store(str(tmp_path / "store")))
        path = Path(store.layout.run(RUN).labels("b.parquet"))
        content = bytearray(path.read_bytes())
        content[20] ^= 1
        path.write_bytes(content)
        with pytest.raises(
            StoreError, match=r"labels/run=run-1/b\.parquet is damaged: its digest is that of other bytes"
        ):
            compact(store)
        assert len(file_names(store, "images")) == len(SHARDS)

    def test_large_files_are_not_put_together(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sorted_files, "_TARGET_BYTES", 1)
        before = all_rows(store)
        assert compact(store).n_files_after == len(SHARDS)
        assert all_rows(store) == before

    def test_a_run_without_commits_has_nothing_to_compact(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        assert compact(store).n_files_after == 0

    def test_an_unknown_run_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreError, match="there is no run other in the store"):
            compact_run(store.run("other"), read_vocabulary(None), lambda done, total: None)


class TestLaterJobs:
    """A compacted run is labelled further as any other."""

    def test_the_shards_are_known_with_the_version_of_their_source_and_their_keys(self, store: Store) -> None:
        former = store.run(RUN).committed()
        versions = {shard: store.run(RUN).read_version(former[shard]) for shard in SHARDS}
        keys = {shard: store.run(RUN).read_keys(shard, former[shard]) for shard in SHARDS}
        compact(store)
        committed = store.run(RUN).committed()
        assert len(committed) == len(SHARDS)
        assert {shard: store.run(RUN).read_version(committed[shard]) for shard in SHARDS} == versions
        assert {shard: store.run(RUN).read_keys(shard, committed[shard]) for shard in SHARDS} == keys
        assert [committed[shard].modified for shard in SHARDS] == [former[shard].modified for shard in SHARDS]

    def test_a_second_time_there_is_nothing_to_do(self, store: Store) -> None:
        compact(store)
        before = file_names(store, "labels")
        compact(store)
        assert file_names(store, "labels") == before

    def test_new_shards_join_a_small_file(self, store: Store) -> None:
        compact(store)
        commit_shard(store, RUN, "new")
        before = all_rows(store)
        assert compact(store).n_files_after == 1
        assert all_rows(store) == before

    def test_a_shard_labelled_again_counts_once_before_and_after_the_next_compaction(self, any_store: Store) -> None:
        compact(any_store)
        commit_shard(any_store, RUN, "b", n_rows=1, n_labels=7, replace=True)
        query = (
            "SELECT (SELECT count(*) FROM images WHERE shard = 'b'), (SELECT count(*) FROM labels WHERE shard = 'b')"
        )
        assert open_store(any_store.url).execute(query).fetchall() == [(1, 7)]
        before = all_rows(any_store)
        assert len(before["images"]) == 3 + 4 + 1 + 6 + 7
        assert compact(any_store).n_files_after == 1
        assert all_rows(any_store) == before
        assert any_store.run(RUN).committed()["b"].generation == 1

    def test_a_job_that_planned_before_the_compaction_replaces_its_shard(self, store: Store) -> None:
        former = store.run(RUN).committed()["b"]
        compact(store)
        assert store.run(RUN).commit("b", *shard_tables("b", 1), {}, replaces=former)
        assert open_store(store.url).execute("SELECT count(*) FROM images WHERE shard = 'b'").fetchall() == [(1,)]

    def test_a_job_that_wakes_up_after_its_shard_was_compacted_changes_nothing(self, store: Store) -> None:
        before = all_rows(store)
        compact(store)
        commit_shard(store, RUN, "b", n_rows=1)
        assert all_rows(store) == before
        compact(store)
        assert all_rows(store) == before
        assert len(file_names(store, "images")) == 1


class TestCrashes:
    """Killed at any step, a compaction leaves the same rows, and the next one goes on."""

    @pytest.mark.parametrize("step", range(1, 16))
    def test_killed_before_any_operation(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        store = fill(Store(str(tmp_path / "store")))
        compact(store)
        commit_shard(store, RUN, "b", n_rows=1, replace=True)
        commit_shard(store, RUN, "new")
        before = all_rows(store)
        with monkeypatch.context() as patched:
            interruption = _die_at(patched, store, step)
            try:
                compact(store)
            except KeyboardInterrupt:
                assert interruption.n_calls == step
            else:
                # Three files move in; images and labels of three shards go, and the former spellings.
                assert step > 3 + 3 * 2 + 1
        assert all_rows(store) == before
        compact(store)
        assert all_rows(store) == before
        assert len(file_names(store, "images")) == 1

    def test_two_compactions_at_once_leave_the_same_rows(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        before = all_rows(store)
        move, others = compaction_module.move_whole, []

        def move_whole(*arguments: Any) -> None:
            if not others:
                others.append(1)
                compact(store)
            move(*arguments)

        monkeypatch.setattr(compaction_module, "move_whole", move_whole)
        compact(store)
        assert all_rows(store) == before
        compact(store)
        assert all_rows(store) == before
        assert len(file_names(store, "images")) == 1

    def test_files_that_another_compaction_took_are_put_off(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = all_rows(store)
        read, others = compaction_module._read_content, []

        def read_content(*arguments: Any) -> Any:
            if not others:
                others.append(1)
                compact(store)
            return read(*arguments)

        monkeypatch.setattr(compaction_module, "_read_content", read_content)
        monkeypatch.setattr(compaction_module, "_N_READERS", 1)
        outcome = compact(store)
        assert (outcome.n_skipped, outcome.n_files_after) == (5, 1)
        assert all_rows(store) == before

    def test_a_shard_that_is_labelled_again_meanwhile_is_not_lost(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        move, others = compaction_module.move_whole, []

        def move_whole(*arguments: Any) -> None:
            if not others:
                others.append(1)
                commit_shard(store, RUN, "b", n_rows=1, replace=True)
            move(*arguments)

        monkeypatch.setattr(compaction_module, "move_whole", move_whole)
        compact(store)
        assert open_store(store.url).execute("SELECT count(*) FROM images WHERE shard = 'b'").fetchall() == [(1,)]

    def test_labels_that_a_running_job_has_just_written_are_left_alone(self, any_store: Store) -> None:
        _, labels = shard_tables("open", 2)
        for name in (file_name("open"), file_name("b", 1), "compacted!000009-0123456789ab.parquet"):
            with any_store.filesystem.open(any_store.layout.run(RUN).labels(name), "wb") as file:
                pq.write_table(labels, file)
        compact(any_store)
        assert len(any_store.run(RUN).list_labels()) == 1 + 3

    def test_what_a_killed_compaction_left_behind_long_ago_is_deleted(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        commit_shard(store, RUN, "0")
        folder = Path(store.layout.run(RUN).images(".compacting-old"))
        folder.mkdir()
        labels = Path(store.layout.run(RUN).labels("compacted!000009-0123456789ab.parquet"))
        labels.write_bytes(b"PAR1")
        for path in (folder, labels):
            os.utime(path, (time.time() - 2 * 86400,) * 2)
        compact(store)
        assert not folder.exists()
        assert not labels.exists()


def _die_at(monkeypatch: pytest.MonkeyPatch, store: Store, step: int) -> Interruption:
    """Interrupts before the n-th file that moves or is deleted."""
    interruption = Interruption(step)
    monkeypatch.setattr(compaction_module, "move_whole", interruption.around(compaction_module.move_whole))
    monkeypatch.setattr(store.filesystem, "rm_file", interruption.around(store.filesystem.rm_file))
    return interruption


class TestLookUps:
    """Questions to a compacted store read little of it."""

    def test_images_with_a_rare_label_are_found_in_a_small_part_of_the_files(
        self, s3: str, tmp_path: Path, s3_reads: list[int]
    ) -> None:
        store = Store(f"{s3}/{tmp_path.name}/store")
        store.create_run(run_record(RUN))
        commit_random_labels(store, n_images=1500, n_labels=300)
        compact(store)
        (file,) = store.run(RUN).list_labels().values()
        assert file["size"] > 4 << 20
        s3_reads.clear()
        found = open_store(store.url).execute("SELECT count(*) FROM images_with('Word-0777')").fetchall()
        assert found[0][0] > 10
        assert 0 < sum(s3_reads) < file["size"] / 4

    @pytest.mark.parametrize("vocabulary", ["the same", "another"])
    def test_names_are_those_of_the_vocabulary_that_is_asked_for(self, tmp_path: Path, vocabulary: str) -> None:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        commit_judged(store, RUN, {"a": [{"labels": ["dogs", "thing"]}], "b": [{"labels": ["Dog", "cat"]}]})
        compact(store)
        commit_judged(store, RUN, {"c": [{"labels": ["DOGS", "mouse"]}]})
        if vocabulary == "the same":
            connection = open_store(store.url)
            assert connection.execute("SELECT count(*) FROM images_with('dog')").fetchall() == [(3,)]
            return
        path = tmp_path / "pets.toml"
        path.write_text('deny = ["thing"]\n[aliases]\ndog = "pet"\ncat = "pet"\n')
        connection = open_store(store.url, read_vocabulary(path))
        names = connection.execute("SELECT name, count(*) FROM labels GROUP BY name ORDER BY name NULLS LAST")
        assert names.fetchall() == [("mouse", 1), ("pet", 4), (None, 1)]

    def test_names_that_were_kept_are_not_made_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        commit_judged(store, RUN, {"a": [{"labels": ["dogs", "cat"]}]})
        compact(store)
        monkeypatch.setattr(Vocabulary, "name_of", lambda self, label: pytest.fail(f"named {label}"))
        connection = open_store(store.url)
        assert connection.execute("SELECT label FROM labels WHERE name = 'dog'").fetchall() == [("dogs",)]


def commit_random_labels(store: Store, n_images: int, n_labels: int) -> None:
    """A shard of so many images, each with so many of a thousand words."""
    images, _ = shard_tables("random", n_images, n_labels=0)
    generator = random.Random(0)
    rows = [
        {
            "image_id": image["image_id"],
            "shard": "random",
            "index": image["index"],
            "rank": rank,
            "label": f"word {number:04}",
            "score": generator.random(),
            "first_token_prob": generator.random(),
            "n_tokens": 2,
        }
        for image in images.to_pylist()
        for rank, number in enumerate(generator.sample(range(1000), n_labels), start=1)
    ]
    store.run(RUN).commit("random", images, pa.Table.from_pylist(rows, schema=LABELS), {})


class TestRewriting:
    """Which files are written anew, where they are made, and which labels are left behind."""

    def small_store(self, tmp_path: Path) -> Store:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        for shard in ("a", "b"):
            commit_shard(store, RUN, shard, n_rows=5)
        return store

    @pytest.fixture
    def compacted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        """A store of a compacted file that is as large as files are to be."""
        store = self.small_store(tmp_path)
        compact(store)
        monkeypatch.setattr(sorted_files, "_TARGET_BYTES", 1)
        return store

    def stored_images(self, store: Store, shard: str) -> int:
        """Images of a shard in all files, those that another file has superseded included."""
        tables = [
            read_file(store.filesystem, store.layout.run(RUN).images(name))[0] for name in store.run(RUN).list_images()
        ]
        return sum(table["shard"].to_pylist().count(shard) for table in tables)

    def test_a_large_file_is_rewritten_without_what_was_labelled_again(self, compacted: Store) -> None:
        commit_shard(compacted, RUN, "b", n_rows=1, replace=True)
        before = all_rows(compacted)
        assert self.stored_images(compacted, "b") == 5 + 1
        compact(compacted)
        assert self.stored_images(compacted, "b") == 1
        assert all_rows(compacted) == before

    @pytest.mark.parametrize(("missing_bytes", "is_left"), [(0, True), (1, False)])
    def test_a_file_of_half_the_size_that_files_are_to_have_is_left_as_it_is(
        self, compacted: Store, monkeypatch: pytest.MonkeyPatch, missing_bytes: int, is_left: bool
    ) -> None:
        ((name, file),) = compacted.run(RUN).list_labels().items()
        monkeypatch.setattr(sorted_files, "_TARGET_BYTES", 2 * file["size"] + missing_bytes)
        commit_shard(compacted, RUN, "new")
        compact(compacted)
        assert (name in compacted.run(RUN).list_images()) == is_left
        assert compacted.run(RUN).committed()["new"].file != "new.parquet"

    def test_a_local_store_is_compacted_within_its_own_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = self.small_store(tmp_path)
        # A folder for temporary files may lie on another disk, from which no file can be renamed into the store.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        assert compact(store).n_files_after == 1
        assert file_names(store, "images") == list(store.run(RUN).list_images())

    @pytest.mark.parametrize(("generation", "is_kept"), [(0, False), (1, False), (2, True)])
    def test_labels_of_a_generation_up_to_the_compacted_one_are_left_behind(
        self, tmp_path: Path, generation: int, is_kept: bool
    ) -> None:
        store = self.small_store(tmp_path)
        commit_shard(store, RUN, "b", n_rows=1, replace=True)
        compact(store)
        path = Path(store.layout.run(RUN).labels(file_name("b", generation)))
        path.write_bytes(b"PAR1")
        compact(store)
        assert path.exists() == is_kept

    @pytest.mark.parametrize(("age_s", "is_kept"), [(23 * 3600, True), (25 * 3600, False)])
    def test_labels_and_folders_of_a_compaction_are_left_behind_after_a_day(
        self, tmp_path: Path, age_s: float, is_kept: bool
    ) -> None:
        store = self.small_store(tmp_path)
        labels = Path(store.layout.run(RUN).labels("compacted!000009-0123456789ab.parquet"))
        labels.write_bytes(b"PAR1")
        folder = Path(store.layout.run(RUN).images(".compacting-old"))
        folder.mkdir()
        for path in (labels, folder):
            os.utime(path, (time.time() - age_s,) * 2)
        compact(store)
        assert (labels.exists(), folder.exists()) == (is_kept, is_kept)
