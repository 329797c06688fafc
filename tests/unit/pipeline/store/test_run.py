"""A run on disk: commits that are seen whole or not at all, generations, records, deletions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.catalog.views import open_store
from pipeline.errors import StoreError
from pipeline.storage.files import write_whole
from pipeline.store import run as run_module
from pipeline.store.ownership import file_name
from pipeline.store.parquet_file import read_file
from pipeline.store.run import Run
from pipeline.store.store import Store
from schemas import IMAGES, LABELS
from tests.fixtures.files import files_below
from tests.fixtures.interruption import Interruption
from tests.fixtures.stored.tables import commit_shard, job_record, run_record, shard_tables

RUN = "run-1"
NASTY_NAMES = [
    "a/b", "a-b", "a%2Fb", "a%2fb", "a\\b", "..", ".", "", " ", ".hidden", "_spark", "%2Ehidden", "größe", "a\nb",
    "a*b", "a?b", "a[1]", "{a}", "a!b", "a~b", "a'b", 'a"b', "a#b", "a;b", "con", "x" * 200, "x" * 201, "x" * 300,
    "ö" * 80, "ö" * 120, "x" * 160 + "!" + "0" * 32,
]  # fmt: skip


def rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    """What a query finds in a store of one run."""
    store.create_run(run_record(RUN))
    return list(open_store(store.url).execute(query).fetchall())


def read_keys(store: Store, shard: str) -> set[str]:
    return store.run(RUN).read_keys(shard, store.run(RUN).committed()[shard])


def _fail_at_write(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """Makes the n-th file of a commit fail."""
    write, calls = run_module.write_whole, []

    def write_whole(filesystem: Any, path: str, content: bytes, **options: Any) -> bool:
        calls.append(path)
        if len(calls) == failing:
            raise OSError("disk full")
        return write(filesystem, path, content, **options)

    monkeypatch.setattr(run_module, "write_whole", write_whole)


class TestListing:
    """Which shards the run's files say are committed."""

    def test_nasty_names_come_back_from_the_listing_each_as_itself(self, store: Store) -> None:
        for number, name in enumerate(NASTY_NAMES):
            assert commit_shard(store, RUN, name, n_rows=1, size=number), name
        committed = store.run(RUN).committed()
        assert len(committed) == len(NASTY_NAMES)
        assert all(store.run(RUN).read_version(committed[name]).size == n for n, name in enumerate(NASTY_NAMES))


class TestCommit:
    """A shard is committed once, whole or not at all."""

    def test_what_was_committed_is_read_back(self, any_store: Store) -> None:
        images, labels = shard_tables("a/0", 3, n_labels=2)
        assert any_store.run(RUN).commit("a/0", images, labels, {"source_size": 5, "source_etag": "x"})
        name = file_name("a/0")
        for path, table in (
            (any_store.layout.run(RUN).images(name), images),
            (any_store.layout.run(RUN).labels(name), labels),
        ):
            with any_store.filesystem.open(path, "rb") as file:
                assert pq.ParquetFile(file).read().equals(table)

    def test_the_keys_of_a_shard_are_read_back(self, any_store: Store) -> None:
        commit_shard(any_store, RUN, "0", keys=["x", "y", "x"])
        assert read_keys(any_store, "0") == {"x", "y"}

    def test_a_second_commit_is_refused_and_changes_nothing(self, any_store: Store) -> None:
        assert commit_shard(any_store, RUN, "0", n_rows=2)
        assert not commit_shard(any_store, RUN, "0", n_rows=5)
        assert len(read_keys(any_store, "0")) == 2

    def test_of_two_commits_the_first_one_stands(self, any_store: Store) -> None:
        assert commit_shard(any_store, RUN, "0", keys=["first"])
        assert not commit_shard(any_store, RUN, "0", keys=["second"])
        assert read_keys(any_store, "0") == {"first"}

    def test_a_replacing_commit_is_the_one_that_stands(self, any_store: Store) -> None:
        commit_shard(any_store, RUN, "0", n_rows=2, etag="v1")
        assert commit_shard(any_store, RUN, "0", n_rows=5, etag="v2", replace=True)
        assert len(read_keys(any_store, "0")) == 5
        assert any_store.run(RUN).read_version(any_store.run(RUN).committed()["0"]).etag == "v2"

    def test_a_shard_whose_images_were_not_written_is_not_committed(
        self, any_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _fail_at_write(monkeypatch, 2)
        with pytest.raises(StoreError, match=r"cannot commit shard 0 to the store .*: disk full"):
            commit_shard(any_store, RUN, "0")
        assert any_store.filesystem.exists(any_store.layout.run(RUN).labels(file_name("0")))
        assert "0" not in any_store.run(RUN).committed()

    def test_a_shard_whose_labels_were_not_written_has_no_images(
        self, any_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _fail_at_write(monkeypatch, 1)
        with pytest.raises(StoreError):
            commit_shard(any_store, RUN, "0")
        assert not any_store.filesystem.exists(any_store.layout.run(RUN).images(file_name("0")))

    @pytest.mark.parametrize("replace", [False, True])
    def test_labels_that_a_crash_left_behind_are_deleted_by_the_next_commit(
        self, any_store: Store, monkeypatch: pytest.MonkeyPatch, replace: bool
    ) -> None:
        if replace:
            commit_shard(any_store, RUN, "0", n_rows=5)
        with monkeypatch.context() as patched:
            _fail_at_write(patched, 2)
            with pytest.raises(StoreError):
                commit_shard(any_store, RUN, "0", n_rows=9, replace=replace)
        assert commit_shard(any_store, RUN, "0", n_rows=2, n_labels=1, replace=replace)
        (name,) = any_store.run(RUN).list_labels()
        assert name == any_store.run(RUN).committed()["0"].file
        table, _ = read_file(any_store.filesystem, any_store.layout.run(RUN).labels(name))
        assert table.num_rows == 2

    def test_a_crash_while_replacing_leaves_the_former_commit_as_it_was(
        self, any_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit_shard(any_store, RUN, "0", n_rows=5)
        with monkeypatch.context() as patched:
            _fail_at_write(patched, 2)
            with pytest.raises(StoreError):
                commit_shard(any_store, RUN, "0", n_rows=9, replace=True)
        assert rows(any_store, "SELECT count(*), count(DISTINCT image_id) FROM labels") == [(10, 5)]

    def test_of_two_jobs_that_commit_a_shard_at_once_the_labels_of_one_stand_beside_its_images(
        self, any_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, slow = run_module.write_whole, []

        def write_whole(filesystem: Any, path: str, content: bytes, **options: Any) -> bool:
            if "/images/" in path and not slow:
                # While this job is about to write its images, another one commits the shard.
                slow.append(path)
                assert commit_shard(any_store, RUN, "0", n_rows=3, n_labels=1)
            return write(filesystem, path, content, **options)

        monkeypatch.setattr(run_module, "write_whole", write_whole)
        assert not commit_shard(any_store, RUN, "0", n_rows=7, n_labels=5)
        assert rows(any_store, "SELECT count(*) FROM images") == [(3,)]
        assert rows(any_store, "SELECT count(*) FROM labels") == [(3,)]
        assert len(any_store.run(RUN).list_labels()) == 1

    def test_a_job_whose_labels_were_taken_for_left_behind_is_the_one_that_commits_if_it_goes_on_first(
        self, any_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, may_go_on, results = run_module.write_whole, Event(), {}

        def write_whole(filesystem: Any, path: str, content: bytes, **options: Any) -> bool:
            if path == any_store.layout.run(RUN).images(file_name("0")):
                second.start()
                may_go_on.wait(60)
            elif "/images/" in path:
                # The second job, which found labels without images, is about to commit.
                may_go_on.set()
                first.join(60)
            return write(filesystem, path, content, **options)

        def commit(name: str, n_rows: int) -> None:
            results[name] = commit_shard(any_store, RUN, "0", n_rows=n_rows)

        monkeypatch.setattr(run_module, "write_whole", write_whole)
        first, second = (Thread(target=commit, args=arguments) for arguments in (("first", 3), ("second", 5)))
        first.start()
        first.join(60)
        second.join(60)
        assert results == {"first": True, "second": False}
        assert rows(any_store, "SELECT count(*) FROM images") == [(3,)]
        assert rows(any_store, "SELECT count(*) FROM labels") == [(6,)]

    @pytest.mark.parametrize("call", ["fsync", "rename"])
    def test_a_crash_while_writing_leaves_no_file_behind(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        def crash(*_: object) -> None:
            raise OSError("disk full")

        if call == "fsync":
            monkeypatch.setattr(os, "fsync", crash)
        else:
            monkeypatch.setattr(Path, "hardlink_to", crash)
        with pytest.raises(StoreError, match="disk full"):
            commit_shard(store, RUN, "0")
        assert files_below(tmp_path) == []

    def test_a_file_has_no_name_that_a_glob_sees_before_it_is_whole(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[str]] = []
        monkeypatch.setattr(os, "fsync", lambda _: seen.append(files_below(tmp_path)))
        commit_shard(store, RUN, "0")
        final = ["store/images/run=run-1/0.parquet", "store/labels/run=run-1/0.parquet"]
        open_files = [[name for name in names if name not in final] for names in seen]
        assert [len(names) for names in open_files] == [1, 1]
        assert all(Path(name).name.startswith(".") and name.endswith(".tmp") for names in open_files for name in names)

    def test_a_half_written_file_of_a_killed_job_is_no_commit(self, store: Store) -> None:
        commit_shard(store, RUN, "0")
        folder = Path(store.layout.run(RUN).images(file_name("0"))).parent
        (folder / ".1.parquet.0123.tmp").write_bytes(b"PAR1")
        (folder / ".1.parquet").write_bytes(b"PAR1")
        (folder / "notes.txt").write_text("?")
        assert len(store.run(RUN).committed()) == 1


class TestGenerations:
    """Which file of several owns a shard."""

    def test_a_replacing_commit_deletes_the_file_that_it_replaces(self, any_store: Store) -> None:
        commit_shard(any_store, RUN, "0")
        for generation in (1, 2):
            commit_shard(any_store, RUN, "0", replace=True)
            assert any_store.run(RUN).committed()["0"].generation == generation
            assert list(any_store.run(RUN).list_labels()) == [file_name("0", generation)]

    def test_of_two_generations_the_higher_is_read_whatever_else_lies_there(
        self, any_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit_shard(any_store, RUN, "0", n_rows=2)
        monkeypatch.setattr(Run, "delete_files", lambda *_: None)
        commit_shard(any_store, RUN, "0", n_rows=5, replace=True)
        assert len(any_store.run(RUN).list_labels()) == 2
        assert rows(any_store, "SELECT count(*) FROM images") == [(5,)]
        assert rows(any_store, "SELECT count(*) FROM labels") == [(10,)]

    def test_a_job_that_replaces_what_another_has_replaced_comes_late(self, any_store: Store) -> None:
        commit_shard(any_store, RUN, "0", n_rows=2)
        former = any_store.run(RUN).committed()["0"]
        tables = shard_tables("0", 3)
        assert any_store.run(RUN).commit("0", *tables, {}, replaces=former)
        assert not any_store.run(RUN).commit("0", *shard_tables("0", 4), {}, replaces=former)
        assert len(read_keys(any_store, "0")) == 3


class TestRecords:
    """The json records."""

    def test_a_record_of_a_newer_version_is_read_without_what_is_unknown(self, store: Store) -> None:
        store.create_run(run_record(RUN))
        path = Path(store.root, "runs", RUN, "run.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "from_the_future": [1]}))
        assert store.run(RUN).read_record() == run_record(RUN)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"run": "x"}', b"\xff\xfe"])
    def test_a_damaged_record_is_named_in_the_error(self, store: Store, content: bytes) -> None:
        store.create_run(run_record(RUN))
        store.run(RUN).write_job(job_record(RUN))
        for path in Path(store.root).rglob("*.json"):
            path.write_bytes(content)
        with pytest.raises(StoreError, match=r"runs/run-1/run\.json is damaged"):
            store.run(RUN).read_record()
        with pytest.raises(StoreError, match=r"runs/run-1/jobs/.*\.json is damaged"):
            store.run(RUN).read_jobs()

    def test_jobs_come_oldest_first_and_a_later_record_of_one_stands(self, any_store: Store) -> None:
        for started, outcome in (("2026-01-02T00:00:00", "running"), ("2026-01-01T00:00:00", "done")):
            any_store.run(RUN).write_job(job_record(RUN, started=started, outcome=outcome))
        any_store.run(RUN).write_job(job_record(RUN, started="2026-01-02T00:00:00", outcome="failed"))
        assert [job.outcome for job in any_store.run(RUN).read_jobs()] == ["done", "failed"]


def test_the_tables_of_the_fixture_have_the_schemas_of_the_store() -> None:
    images, labels = shard_tables("0", 3, n_labels=2)
    assert isinstance(images, pa.Table)
    assert (images.schema, labels.schema) == (IMAGES, LABELS)


class TestDeletions:
    """What is deleted, and in which order."""

    COMPACTED = "compacted!000001-0123456789ab.parquet"

    def fill(self, store: Store) -> list[str]:
        """Writes files of two shards and a compacted one; returns their paths, in the order they are to be deleted."""
        layout = store.layout.run(RUN)
        paths = [layout.file(table, name) for name in ("0.parquet", "1.parquet") for table in ("images", "labels")]
        paths += [layout.file(table, self.COMPACTED) for table in ("images", "labels", "spellings")]
        for path in paths:
            write_whole(store.filesystem, path, b"PAR1")
        return paths

    def test_images_go_before_the_labels_and_spellings_that_belong_to_them(
        self, any_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected, deleted = self.fill(any_store), []
        monkeypatch.setattr(any_store.filesystem, "rm_file", lambda path: deleted.append(path))
        any_store.run(RUN).delete_files(["0.parquet", "1.parquet", self.COMPACTED])
        assert deleted == expected

    @pytest.mark.parametrize("n_deleted", range(1, 7))
    def test_wherever_a_deletion_is_broken_off_no_images_stand_without_their_labels(
        self, tmp_path: Path, n_deleted: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(str(tmp_path / "store"))
        self.fill(store)
        remove = Interruption(n_deleted + 1).around(store.filesystem.rm_file)
        monkeypatch.setattr(store.filesystem, "rm_file", remove)
        with pytest.raises(KeyboardInterrupt):
            store.run(RUN).delete_files(["0.parquet", "1.parquet", self.COMPACTED])
        assert set(store.run(RUN).list_images()) <= set(store.run(RUN).list_labels())
        assert len(files_below(tmp_path)) == 7 - n_deleted

    def test_what_is_gone_already_is_passed_over_and_the_rest_deleted(self, any_store: Store) -> None:
        paths = self.fill(any_store)
        for path in (paths[0], paths[3], paths[5]):
            any_store.filesystem.rm_file(path)
        any_store.run(RUN).delete_files(["0.parquet", "1.parquet", self.COMPACTED, "never.parquet"])
        assert not any(any_store.filesystem.exists(path) for path in paths)

    def test_spellings_of_another_file_than_a_compacted_one_are_not_touched(self, store: Store) -> None:
        path = store.layout.run(RUN).spellings("0.parquet")
        write_whole(store.filesystem, path, b"?")
        store.run(RUN).delete_files(["0.parquet"])
        assert store.filesystem.exists(path)
