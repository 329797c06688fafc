"""Storages that fail under a shard that is read or committed: nothing is lost, nothing is made up."""

from __future__ import annotations

import errno
import gzip
import os
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipeline.errors import StorageError
from pipeline.sources import shard_reader, tar_archive
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from pipeline.store.parquet_file import read_file
from pipeline.store.store import Store
from tests.fixtures.corpus import tar_bytes
from tests.fixtures.files import files_below
from tests.fixtures.servers.faulty_s3 import Fault, FaultyS3
from tests.fixtures.stored.tables import commit_shard, run_record, shard_tables

RUN = "run-1"
IMAGES = [random.Random(number).randbytes(40_000) for number in range(12)]
NOBODY = 65534


def tar() -> bytes:
    return tar_bytes((f"{number}.jpg", data) for number, data in enumerate(IMAGES))


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"key": [str(n) for n in range(len(IMAGES))], "bytes": IMAGES}), sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


SHARDS: dict[str, Callable[[], bytes]] = {
    "shard.tar": tar,
    "shard.tar.gz": lambda: gzip.compress(tar()),
    "shard.parquet": parquet,
    "folder/0.jpg": lambda: IMAGES[0],
}

FAULTS_FOR_GOOD = [Fault.SLOW_DOWN, pytest.param(Fault.CUT_BODY, marks=pytest.mark.long), Fault.FORBIDDEN]


@pytest.fixture(params=SHARDS)
def source(
    request: pytest.FixtureRequest, faulty_s3: FaultyS3, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """URL of a shard on S3 that takes several requests to read."""
    monkeypatch.setattr(shard_reader, "_READ_AHEAD_BYTES", 100_000)
    monkeypatch.setattr(tar_archive, "_BUFFER_BYTES", 50_000)
    url = f"{s3}/{tmp_path.name}/{request.param}"
    Store(s3).filesystem.pipe_file(url, SHARDS[request.param]())
    faulty_s3.calm()
    return url.replace("/0.jpg", "")


@pytest.fixture
def store(faulty_s3: FaultyS3, s3: str, tmp_path: Path) -> Store:
    """A store on S3 with a run."""
    store = Store(f"{s3}/{tmp_path.name}/store")
    store.create_run(run_record(RUN))
    faulty_s3.calm()
    return store


def read_samples(url: str) -> list[dict[str, Any]]:
    found = find_source(url)
    shards = found.shards or [Shard("folder", found.root, "folder", files=tuple(found.images))]
    return [
        sample for shard in shards for batch in read_batches(shard, 5) for sample in batch.column("samples")[0].as_py()
    ]


def stored_rows(store: Store, shard: str) -> tuple[pa.Table, pa.Table]:
    """Images and labels of a committed shard, which has no other files."""
    assert len(store.run(RUN).list_labels()) == len(store.run(RUN).committed())
    file = store.run(RUN).committed()[shard].file
    return read_file(store.filesystem, store.layout.run(RUN).images(file))[0], read_file(
        store.filesystem, store.layout.run(RUN).labels(file)
    )[0]


class TestReading:
    """A shard on a storage that fails."""

    @pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
    def test_its_samples_are_those_of_an_undisturbed_read(
        self, source: str, faulty_s3: FaultyS3, seed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # So many that none of its requests, which are others in each session, fails as often; by a client of its own.
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "12")
        retries = {"total_max_attempts": 12, "mode": "standard"}
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 60, "retries": retries}})
        expected = read_samples(source)
        assert [sample["data"] for sample in expected] == IMAGES[: len(expected)]
        faulty_s3.inject(Fault.CUT_BODY, method="GET", part="/shard" if "/shard" in source else "/0.jpg")
        faulty_s3.inject_at_random(seed, 0.3)
        assert read_samples(source) == expected
        assert faulty_s3.injected[Fault.CUT_BODY] >= 1

    @pytest.mark.parametrize("fault", FAULTS_FOR_GOOD)
    def test_one_that_fails_for_good_is_no_fault_of_the_shard(
        self, source: str, faulty_s3: FaultyS3, fault: Fault
    ) -> None:
        with_ranges = "/shard" in source
        faulty_s3.inject(
            fault, method="GET", part="/shard" if with_ranges else "/0.jpg", times=None, skip=2 if with_ranges else 0
        )
        if fault is Fault.FORBIDDEN and not with_ranges:
            # One file of a folder, which may be read otherwise, costs no more than its row.
            assert [sample["error"] for sample in read_samples(source)] == ["FileUnreadable"]
            return
        said = "permission denied" if fault is Fault.FORBIDDEN else "given up after 5 attempts"
        with pytest.raises(StorageError, match=rf"^cannot read shard \w* ?.*\(s3://corpus/.*\): .*{said}"):
            read_samples(source)
        faulty_s3.calm()
        assert [sample["data"] for sample in read_samples(source)] == IMAGES[: 12 if with_ranges else 1]

    @pytest.mark.parametrize("source", [name for name in SHARDS if name.startswith("shard")], indirect=True)
    def test_an_object_that_ends_early_is_not_taken_for_a_damaged_one(
        self, source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetch = s3fs.core.S3File._fetch_range
        end = 250_000

        def cut(self: Any, start: int, stop: int) -> bytes:
            # A cache in between that holds the beginning and gives it out as the whole.
            content: bytes = fetch(self, start, stop)
            return content[: max(0, end - start)]

        monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", cut)
        with pytest.raises(StorageError, match=r"the storage gave no more than \d+ of \d+ bytes"):
            read_samples(source)

    def test_an_archive_that_was_cut_before_it_was_stored_is_one_rejected_row_more(
        self, faulty_s3: FaultyS3, s3: str, tmp_path: Path
    ) -> None:
        Store(s3).filesystem.pipe_file(f"{s3}/{tmp_path.name}/0.tar", tar()[:200_000])
        *whole, rejected = read_samples(f"{s3}/{tmp_path.name}/0.tar")
        assert [sample["data"] for sample in whole] == IMAGES[:4]
        assert (rejected["data"], rejected["error"]) == (None, "ArchiveDamaged")


class TestCommits:
    """A store whose answers get lost."""

    @pytest.mark.parametrize("part", ["/labels/", "/images/"])
    def test_a_commit_whose_answer_is_lost_is_known_for_its_own(
        self, store: Store, faulty_s3: FaultyS3, part: str
    ) -> None:
        faulty_s3.inject(Fault.CUT_AFTER, method="PUT", part=part)
        assert commit_shard(store, RUN, "0")
        assert faulty_s3.injected == {Fault.CUT_AFTER: 1}
        images, labels = stored_rows(store, "0")
        assert (images.num_rows, labels.num_rows) == (2, 4)
        assert not commit_shard(store, RUN, "0")

    def test_a_commit_of_the_same_rows_by_another_job_is_not(self, store: Store, faulty_s3: FaultyS3) -> None:
        assert commit_shard(store, RUN, "0")
        faulty_s3.inject(Fault.CUT_AFTER, method="PUT")
        assert not commit_shard(store, RUN, "0")
        assert faulty_s3.injected == {Fault.CUT_AFTER: 1}
        assert stored_rows(store, "0")[0].num_rows == 2

    @pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))])
    def test_of_jobs_with_the_same_rows_the_first_alone_commits_each_shard(
        self, store: Store, faulty_s3: FaultyS3, seed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "12")
        store.filesystem = type(store.filesystem)(use_listings_cache=False, skip_instance_cache=True)
        shards = [str(number) for number in range(8)]
        faulty_s3.inject(Fault.CUT_AFTER, method="PUT", part="/images/", times=3)
        faulty_s3.inject_at_random(seed, 0.25, "store/")
        with ThreadPoolExecutor(4) as committers:
            results = list(committers.map(lambda shard: [commit_shard(store, RUN, shard) for _ in range(2)], shards))
        assert faulty_s3.injected[Fault.CUT_AFTER] >= 3
        faulty_s3.calm()
        assert results == [[True, False]] * len(shards)
        for shard in shards:
            assert stored_rows(store, shard) == shard_tables(shard)

    def test_a_run_whose_answer_is_lost_is_the_one_that_was_made(self, store: Store, faulty_s3: FaultyS3) -> None:
        faulty_s3.inject(Fault.CUT_AFTER, method="PUT", part="run.json")
        record = run_record("run-2")
        assert store.create_run(record) == record == store.run("run-2").read_record()
        assert faulty_s3.injected == {Fault.CUT_AFTER: 1}

    @pytest.mark.parametrize("part", ["/labels/", "/images/"])
    @pytest.mark.parametrize("fault", [Fault.INTERNAL_ERROR, Fault.CUT_AFTER])
    def test_a_commit_that_is_given_up_names_the_shard_and_is_done_by_the_next_job(
        self, store: Store, faulty_s3: FaultyS3, part: str, fault: Fault
    ) -> None:
        faulty_s3.inject(fault, part=part, times=None)
        with pytest.raises(
            StorageError, match=r"^cannot commit shard 0 to the store s3://.*given up after 5 attempts\)$"
        ):
            commit_shard(store, RUN, "0")
        faulty_s3.calm()
        # Where only the answers were lost, the commit stands.
        assert commit_shard(store, RUN, "0") == (fault is Fault.INTERNAL_ERROR or part == "/labels/")
        assert stored_rows(store, "0") == shard_tables("0")


class TestLocalDisk:
    """A disk that takes no more."""

    @pytest.mark.skipif(os.name != "posix", reason="the limit is one of POSIX")
    def test_a_commit_that_does_not_fit_leaves_nothing_and_is_done_when_it_fits(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        assert commit_shard(store, RUN, "0")
        before = files_below(tmp_path)
        with _file_size_limited(100_000), pytest.raises(StorageError) as caught:
            commit_shard(store, RUN, "1", n_rows=30_000)
        assert str(caught.value).startswith(f"cannot commit shard 1 to the store {tmp_path}/store: [Errno")
        assert files_below(tmp_path) == before
        assert commit_shard(store, RUN, "1", n_rows=30_000)

    @pytest.mark.parametrize("call", ["write", "fsync", "link"])
    def test_a_full_disk_is_one_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        store = Store(str(tmp_path / "store"))
        with monkeypatch.context() as patched:
            _fill_disk(patched, call)
            with pytest.raises(
                StorageError, match=r"^cannot commit shard 0 to .*: \[Errno 28\] No space left on device"
            ):
                commit_shard(store, RUN, "0")
        assert files_below(tmp_path) == []
        assert commit_shard(store, RUN, "0")

    def test_permission_that_is_lost_is_named_and_nothing_is_left(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(f"{folder}/store")
            assert commit_shard(store, RUN, "0")
            before = files_below(Path(folder))
            with (
                _without_permission(Path(folder)),
                pytest.raises(StorageError, match=r"cannot commit shard 1 .*denied"),
            ):
                commit_shard(store, RUN, "1")
            assert files_below(Path(folder)) == before
            assert commit_shard(store, RUN, "1")


@contextmanager
def _file_size_limited(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _fill_disk(patched: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        # Linux's device that is always full, in the place of the temporary file.
        opened = Path.open
        patched.setattr(Path, "open", lambda self, mode="r": opened(Path("/dev/full") if mode == "wb" else self, mode))
    elif call == "fsync":
        patched.setattr(os, "fsync", full)
    else:
        patched.setattr(Path, "hardlink_to", full)


@contextmanager
def _without_permission(folder: Path) -> Iterator[None]:
    """The folder's tree can be read, not written; root, to whom that means nothing, is somebody else meanwhile."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in folders:
            path.chmod(0o755)
