"""Which shards a job labels, given a source and what a run has committed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.labelling.pending import ShardPlan, cut_to_limit, cut_waves, find_changed, plan_shards
from pipeline.sources.image_folder import folder_shard
from pipeline.sources.listing import find_source
from pipeline.sources.shard import FileVersion, ImageFile, Shard
from pipeline.store.ledger import LedgerWriter
from pipeline.store.ownership import CommittedShard, CommittedShards, file_name
from pipeline.store.run import Run
from pipeline.store.store import Store
from tests.fixtures.corpus import tar_bytes
from tests.fixtures.stored.tables import commit_shard

RUN = "run-1"
LONG_AGO = time.time() - 7 * 86400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def write(path: Path, content: bytes = b"x", modified: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if modified is not None:
        os.utime(path, (modified, modified))


def plan(store: Store, folder: Path, policy: str = "keep", n_buckets: int = 0) -> ShardPlan:
    return plan_shards(store.run(RUN), find_source(str(folder)), n_buckets, policy)


def commit(store: Store, shards: list[Shard]) -> None:
    """Commits shards as a job does that labels them now."""
    for shard in shards:
        keys = [file.key for file in shard.files] or None
        commit_shard(store, RUN, shard.name, keys=keys, size=shard.size, etag=shard.etag, replace=True)


def names(shards: list[Shard]) -> list[str]:
    return [shard.name for shard in shards]


class TestShards:
    """Sources that come in shards."""

    @pytest.fixture(autouse=True)
    def tars(self, folder: Path) -> None:
        for number in range(3):
            write(folder / f"{number}.tar", tar_bytes([("a.jpg", b"A")]))

    def test_at_first_all_shards_are_pending_in_order(self, store: Store, folder: Path) -> None:
        planned = plan(store, folder)
        assert (names(planned.pending), planned.n_shards, planned.n_done) == (["0", "1", "2"], 3, 0)

    def test_committed_shards_are_not_pending(self, store: Store, folder: Path) -> None:
        commit(store, plan(store, folder).pending[1:])
        planned = plan(store, folder)
        assert (names(planned.pending), planned.n_shards, planned.n_done) == (["0"], 3, 2)

    def test_the_commits_of_another_run_do_not_count(self, store: Store, folder: Path) -> None:
        commit_shard(store, "run-2", "0")
        assert len(plan(store, folder).pending) == 3

    def test_commits_of_shards_that_the_source_has_no_more_do_not_count(self, store: Store, folder: Path) -> None:
        commit(store, plan(store, folder).pending)
        (folder / "1.tar").unlink()
        assert (plan(store, folder).n_shards, plan(store, folder).n_done) == (2, 2)

    @pytest.mark.parametrize(("policy", "pending"), [("keep", []), ("relabel", ["1"])])
    def test_a_changed_shard_is_reported_and_pending_where_it_is_to_be_renewed(
        self, store: Store, folder: Path, policy: str, pending: list[str]
    ) -> None:
        commit(store, plan(store, folder).pending)
        write(folder / "1.tar", tar_bytes([("b.jpg", b"B" * 20_000)]))
        planned = plan(store, folder, policy)
        assert (names(planned.changed), names(planned.pending)) == (["1"], pending)
        assert set(planned.replaced) == set(pending)

    def test_a_shard_of_the_same_size_is_known_by_its_time(self, store: Store, folder: Path) -> None:
        commit(store, plan(store, folder).pending)
        write(folder / "1.tar", tar_bytes([("b.jpg", b"B")]), modified=time.time() + 1)
        assert names(plan(store, folder).changed) == ["1"]

    def test_a_changed_shard_fails_the_job_where_that_is_asked_for(self, store: Store, folder: Path) -> None:
        commit(store, plan(store, folder).pending)
        write(folder / "1.tar", b"other")
        with pytest.raises(SourceError, match=r"1 shards changed after they were committed, the first is .*1\.tar"):
            plan(store, folder, "fail")

    def test_an_unchanged_source_does_not_fail_the_job(self, store: Store, folder: Path) -> None:
        commit(store, plan(store, folder).pending)
        assert plan(store, folder, "fail").pending == []

    def test_an_old_file_that_was_moved_into_place_is_seen(self, store: Store, folder: Path, tmp_path: Path) -> None:
        commit(store, plan(store, folder).pending)
        write(tmp_path / "older.tar", b"other", modified=LONG_AGO)
        (tmp_path / "older.tar").rename(folder / "1.tar")
        assert names(plan(store, folder).changed) == ["1"]

    def test_only_files_that_are_not_older_than_their_commit_are_looked_at(
        self, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit(store, plan(store, folder).pending)
        for name in ("0", "1"):
            # As if these were committed tomorrow.
            os.utime(store.layout.run(RUN).images(file_name(name)), (time.time() + 86400,) * 2)
        looked_at: list[str] = []
        read = Run.read_version
        monkeypatch.setattr(
            Run, "read_version", lambda self, shard: (looked_at.append(shard.file), read(self, shard))[1]
        )
        plan(store, folder)
        assert looked_at == ["2.parquet"]

    def test_of_many_shards_the_ledger_tells_which_changed_and_no_file_is_opened(
        self, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.labelling.pending._MANY_SUSPECTS", 1)
        for number in range(3):
            write(folder / f"{number}.tar")
        run, ledger = store.run(RUN), LedgerWriter(store.filesystem, store.layout.run(RUN))
        for shard in plan(store, folder).pending:
            commit_shard(store, RUN, shard.name, size=shard.size, etag=shard.etag, ledger=ledger)
        ledger.flush()
        write(folder / "1.tar", b"other")
        monkeypatch.setattr(Run, "read_version", lambda *_: pytest.fail("a footer was read"))
        assert names(plan(store, folder).changed) == ["1"]
        assert run.noted_versions(run.committed()).keys() == {"0.parquet", "1.parquet", "2.parquet"}

    def test_a_copied_source_is_not_taken_for_changed(self, store: Store, folder: Path, tmp_path: Path) -> None:
        for path in folder.iterdir():
            os.utime(path, (LONG_AGO, LONG_AGO))
        commit(store, plan(store, folder).pending)
        folder.rename(tmp_path / "elsewhere")
        shutil.copytree(tmp_path / "elsewhere", folder)
        assert plan(store, folder).changed == []

    def test_shards_that_are_labelled_again_come_in_order_with_the_others(self, store: Store, folder: Path) -> None:
        commit(store, plan(store, folder).pending[1:])
        write(folder / "1.tar", b"other")
        write(folder / "3.tar")
        assert names(plan(store, folder, "relabel").pending) == ["0", "1", "3"]

    @pytest.mark.parametrize("name", ["größe", "sub/folder", "100%", "_first", "x" * 210])
    def test_a_shard_of_any_name_is_missing_once_the_source_has_it_no_more(
        self, store: Store, folder: Path, name: str
    ) -> None:
        write(folder / f"{name}.tar")
        commit(store, plan(store, folder).pending)
        assert plan(store, folder).n_missing == 0
        (folder / f"{name}.tar").unlink()
        assert plan(store, folder).n_missing == 1

    def test_shards_of_a_web_server_are_never_taken_for_changed(self, store: Store, folder: Path) -> None:
        (folder / "list").write_text("https://host/0.tar\n")
        source = find_source(f"@{folder}/list")
        commit_shard(store, RUN, "host/0", size=7, etag="v1")
        planned = plan_shards(store.run(RUN), source, 0, "fail")
        assert (planned.pending, planned.changed) == ([], [])


class TestChanges:
    """Whether a committed shard's file is another one now, told by what listings say of both."""

    COMMITTED_S = 1_000_000.0

    def is_changed(
        self,
        store: Store,
        *,
        size: int | None = 7,
        etag: str | None = "v1",
        modified: float | None = COMMITTED_S,
        of_commit: tuple[int | None, str | None] = (7, "v1"),
        committed_s: float | None = COMMITTED_S,
    ) -> bool:
        commit_shard(store, RUN, "0", size=of_commit[0], etag=of_commit[1])
        shard = Shard("0", "protocol://host/0.tar", "tar", size, etag, modified)
        committed = CommittedShards({"0": CommittedShard(file_name("0"), 0, committed_s)})
        return find_changed(store.run(RUN), [shard], committed) == [shard]

    @pytest.mark.parametrize(("size", "etag"), [(8, "v1"), (7, "v2"), (8, "v2"), (7, None), (None, "v1")])
    def test_another_size_or_etag_is_a_change(self, store: Store, size: int | None, etag: str | None) -> None:
        assert self.is_changed(store, size=size, etag=etag)

    def test_the_same_size_and_etag_are_none(self, store: Store) -> None:
        assert not self.is_changed(store)

    @pytest.mark.parametrize(("size", "expected"), [(7, False), (8, True)])
    def test_where_a_storage_has_no_etags_the_size_tells(self, store: Store, size: int, expected: bool) -> None:
        assert self.is_changed(store, size=size, etag=None, of_commit=(7, None)) == expected

    @pytest.mark.parametrize(("etag", "expected"), [("v1", False), ("v2", True)])
    def test_where_a_storage_has_no_sizes_the_etag_tells(self, store: Store, etag: str, expected: bool) -> None:
        assert self.is_changed(store, size=None, etag=etag, of_commit=(None, "v1")) == expected

    @pytest.mark.parametrize("committed_s", [COMMITTED_S, None])
    def test_where_a_storage_has_neither_nothing_is_told(self, store: Store, committed_s: float | None) -> None:
        assert not self.is_changed(store, size=None, etag=None, committed_s=committed_s)

    # Clocks may differ by ten minutes.
    @pytest.mark.parametrize(("age_s", "expected"), [(-86400, True), (0, True), (599, True), (601, False)])
    def test_a_file_that_is_clearly_older_than_its_commit_is_not_looked_at(
        self, store: Store, age_s: float, expected: bool
    ) -> None:
        assert self.is_changed(store, size=8, modified=self.COMMITTED_S - age_s) == expected

    def test_a_file_without_a_time_is_not_looked_at(self, store: Store) -> None:
        assert not self.is_changed(store, size=8, modified=None)

    @pytest.mark.parametrize("modified", [COMMITTED_S, None])
    def test_where_the_commit_has_no_time_every_file_is_looked_at(self, store: Store, modified: float | None) -> None:
        assert self.is_changed(store, size=8, modified=modified, committed_s=None)
        assert not self.is_changed(store, modified=modified, committed_s=None)


class TestFolder:
    """Folders of images, which grow."""

    def test_all_images_are_pending_in_the_buckets_of_the_run(self, store: Store, folder: Path) -> None:
        for number in range(40):
            write(folder / f"{number}.jpg")
        planned = plan(store, folder, n_buckets=4)
        assert names(planned.pending) == [f"bucket-000{number}-of-0004" for number in range(4)]
        assert sum(len(shard.files) for shard in planned.pending) == 40

    def test_added_images_are_the_next_generation_and_the_others_stay_done(self, store: Store, folder: Path) -> None:
        write(folder / "a.jpg")
        commit(store, plan(store, folder, n_buckets=1).pending)
        for generation, name in enumerate(("b.jpg", "0.jpg"), start=1):
            write(folder / name)
            planned = plan(store, folder, n_buckets=1)
            assert names(planned.pending) == [f"bucket-0000-of-0001+{generation}"]
            assert [file.path for file in planned.pending[0].files] == [name]
            assert (planned.n_shards, planned.n_done) == (generation + 1, generation)
            commit(store, planned.pending)
        assert plan(store, folder, n_buckets=1).pending == []

    @pytest.mark.parametrize("generation", [0, 1, 2])
    def test_a_generation_whose_file_was_taken_out_gets_its_own_images_again(
        self, store: Store, folder: Path, generation: int
    ) -> None:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            write(folder / name)
            commit(store, plan(store, folder, n_buckets=1).pending)
        taken = f"bucket-0000-of-0001{f'+{generation}' if generation else ''}"
        store.run(RUN).delete_files([file_name(taken)])
        # Files of others among the run's, whose names are no generations.
        commit_shard(store, RUN, "bucket-0000-of-0001+x")
        commit_shard(store, RUN, "bucket-0000-of-0001+0")
        planned = plan(store, folder, n_buckets=1)
        assert names(planned.pending) == [taken]
        assert [file.path for file in planned.pending[0].files] == [("a.jpg", "b.jpg", "c.jpg")[generation]]

    def test_an_image_that_changed_makes_its_bucket_a_changed_one(self, store: Store, folder: Path) -> None:
        for name in ("a.jpg", "b.jpg"):
            write(folder / name)
        commit(store, plan(store, folder, n_buckets=1).pending)
        write(folder / "b.jpg", b"other")
        planned = plan(store, folder, "relabel", n_buckets=1)
        assert names(planned.changed) == names(planned.pending) == ["bucket-0000-of-0001"]
        assert [file.path for file in planned.pending[0].files] == ["a.jpg", "b.jpg"]

    def test_an_image_that_changed_is_seen_beside_one_that_is_older_than_the_commit(
        self, store: Store, folder: Path
    ) -> None:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            write(folder / name)
        commit(store, plan(store, folder, n_buckets=1).pending)
        # As if it was committed tomorrow, and the image written the day after.
        committed_s = time.time() + 86400
        os.utime(store.layout.run(RUN).images(file_name("bucket-0000-of-0001")), (committed_s, committed_s))
        write(folder / "b.jpg", b"other", modified=committed_s + 86400)
        assert names(plan(store, folder, n_buckets=1).changed) == ["bucket-0000-of-0001"]

    def test_new_rights_of_an_image_are_no_change(self, store: Store, folder: Path) -> None:
        write(folder / "a.jpg")
        commit(store, plan(store, folder, n_buckets=1).pending)
        (folder / "a.jpg").chmod(0o600)
        assert plan(store, folder, n_buckets=1).changed == []

    def test_images_that_were_removed_are_not_labelled_again(self, store: Store, folder: Path) -> None:
        for name in ("a.jpg", "b.jpg"):
            write(folder / name)
        commit(store, plan(store, folder, n_buckets=1).pending)
        (folder / "a.jpg").unlink()
        assert plan(store, folder, n_buckets=1).pending == []

    def test_a_name_that_is_no_utf_8_is_done_once_it_is_committed(self, store: Store, folder: Path) -> None:
        write(folder / os.fsdecode(b"\xff.jpg"))
        commit(store, plan(store, folder, n_buckets=1).pending)
        assert plan(store, folder, n_buckets=1).pending == []

    @pytest.mark.parametrize("stray", ["labels.parquet", "tags.tar", "old.zip"])
    def test_a_folder_stays_a_folder_whatever_shards_come_to_lie_in_it(
        self, store: Store, folder: Path, stray: str
    ) -> None:
        write(folder / "a.jpg", modified=LONG_AGO)
        commit(store, plan(store, folder, n_buckets=1).pending)
        for number in range(3):
            write(folder / f"{number}-{stray}")
        write(folder / "b.jpg")
        assert names(plan(store, folder, n_buckets=1).pending) == ["bucket-0000-of-0001+1"]

    def test_shards_stay_shards_however_many_images_come_to_lie_beside_them(self, store: Store, folder: Path) -> None:
        write(folder / "a.tar", modified=LONG_AGO)
        commit(store, plan(store, folder).pending)
        for name in ("b.tar", "1.jpg", "2.jpg", "3.jpg"):
            write(folder / name)
        assert names(plan(store, folder).pending) == ["b"]

    def test_images_in_place_of_the_shards_of_a_run_are_refused(self, store: Store, folder: Path) -> None:
        write(folder / "a.jpg")
        with pytest.raises(SourceError, match="holds nothing but images now, and run run-1 labels its shards"):
            plan(store, folder, n_buckets=0)

    def test_a_bucket_has_the_size_of_all_its_files_and_the_time_of_the_newest(self) -> None:
        versions = [FileVersion(1, "x", 5.0), FileVersion(20, "y", 9.0), FileVersion(300, "z", 7.0)]
        shard = folder_shard("/root", "bucket", [ImageFile(str(number), one) for number, one in enumerate(versions)])
        assert (shard.size, shard.modified) == (321, 9.0)

    def test_a_bucket_whose_files_are_all_gone_has_no_time(self) -> None:
        shard = folder_shard("/root", "bucket", [])
        assert (shard.size, shard.modified) == (0, None)

    def test_the_etag_of_a_bucket_tells_which_files_it_has_and_how_they_are(self) -> None:
        base = ImageFile("a.jpg", FileVersion(1, "x", 5.0))
        variants = [
            [base],
            [base, base],
            [ImageFile("b.jpg", base.version)],
            [ImageFile("a.jpg", FileVersion(2, "x", 5.0))],
            [ImageFile("a.jpg", FileVersion(1, "y", 5.0))],
        ]
        assert len({folder_shard("/root", "bucket", files).etag for files in variants}) == len(variants)
        touched = ImageFile("a.jpg", FileVersion(1, "x", 9.0))
        assert folder_shard("/root", "b", [touched]).etag == folder_shard("/root", "b", [base]).etag


class TestLimit:
    """How many images a job with a limit labels."""

    @pytest.mark.parametrize("limit", [1, 5, 6, 7, 19])
    def test_of_a_folder_exactly_so_many_are_labelled_and_the_rest_follows(
        self, store: Store, folder: Path, limit: int
    ) -> None:
        for number in range(20):
            write(folder / f"{number}.jpg")
        cut = cut_to_limit(plan(store, folder, n_buckets=3).pending, limit)
        assert sum(len(shard.files) for shard in cut) == limit
        commit(store, cut)
        later = plan(store, folder, n_buckets=3)
        assert later.changed == []
        keys = [file.key for shard in [*cut, *later.pending] for file in shard.files]
        assert sorted(keys) == sorted(f"{number}.jpg" for number in range(20))

    def test_without_a_limit_and_of_tars_nothing_is_cut(self) -> None:
        folder = [
            Shard("a", "/data", "folder", files=tuple(ImageFile(name, FileVersion(1, "x", 5.0)) for name in "ab"))
        ]
        assert cut_to_limit(folder, 0) == folder
        assert cut_to_limit(TestWaves.SHARDS, 3) == TestWaves.SHARDS
        assert [len(shard.files) for shard in cut_to_limit([*folder, *TestWaves.SHARDS], 1)][:2] == [1, 0]


class TestWaves:
    """Groups of shards that are labelled one after the other."""

    SHARDS = [Shard(str(number), f"/data/{number}.tar", "tar") for number in range(100)]

    def sizes(self, limit: int, images_per_shard: int, n_shards: int = 100, size: int = 2000) -> list[int]:
        """Sizes of the waves, if every shard that is labelled commits so many images."""
        sizes: list[int] = []
        for wave in cut_waves(self.SHARDS[:n_shards], limit, lambda: sum(sizes) * images_per_shard, size):
            sizes.append(len(wave))
        return sizes

    def test_without_a_limit_all_shards_are_labelled_in_large_waves(self) -> None:
        waves = list(cut_waves(self.SHARDS, 0, lambda: 0, size=40))
        assert [len(wave) for wave in waves] == [40, 40, 20]
        assert [shard for wave in waves for shard in wave] == self.SHARDS

    def test_waves_may_begin_short(self) -> None:
        most = iter([2, 2, 1000, 1000])
        waves = cut_waves(self.SHARDS, 0, lambda: 0, size=60, most=lambda: next(most))
        assert [len(wave) for wave in waves] == [2, 2, 60, 36]

    def test_a_limit_costs_one_shard_to_learn_its_size_and_then_what_is_missing(self) -> None:
        assert self.sizes(limit=95, images_per_shard=10) == [1, 8, 1]

    def test_a_wave_is_no_larger_than_without_a_limit(self) -> None:
        assert self.sizes(limit=95, images_per_shard=10, size=4) == [1, 4, 4, 1]

    def test_a_limit_within_the_first_shard_costs_that_shard(self) -> None:
        assert self.sizes(limit=3, images_per_shard=10) == [1]

    def test_a_limit_beyond_the_source_takes_all_of_it(self) -> None:
        assert sum(self.sizes(limit=10_000, images_per_shard=10)) == 100

    def test_shards_that_another_job_committed_first_do_not_stop_a_job_with_a_limit(self) -> None:
        assert sum(self.sizes(limit=7, images_per_shard=0, n_shards=9)) == 9
