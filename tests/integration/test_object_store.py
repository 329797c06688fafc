"""On SeaweedFS, which people run as their object store: what commits and locks rely on, and the whole life of a run."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.errors import RunLockedError
from pipeline.packing.pack import PackError, pack_folder
from pipeline.storage.files import open_filesystem, write_whole
from pipeline.store.lock import RunLock, read_locks
from pipeline.store.ownership import is_compacted
from pipeline.store.store import Store
from pipeline.training.checkpoints import Checkpoints, TrainingState
from pipeline.training.examples import Position
from pipeline.upkeep.verification import verify_run
from tests.fixtures.corpus import encode, jpeg, sample_members, shard_bytes, tar_bytes, write_tars
from tests.fixtures.processes.command_process import CommandProcess, command_process
from tests.fixtures.servers.faulty_s3 import Fault, FaultyS3
from tests.fixtures.servers.seaweedfs import ObjectStore
from tests.fixtures.stored.damage import Damager
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.queries import read_table, rows
from tests.fixtures.stored.tables import commit_shard, run_record
from tests.fixtures.stored.verified import FOUND, RUN, all_rows, compact, kinds, repair

N_AT_ONCE = 4


@pytest.fixture(scope="module", autouse=True)
def options(real_s3: ObjectStore) -> Iterator[Mapping[str, Any]]:
    """Lets s3fs in this process find the store, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "s3", real_s3.options)
        yield real_s3.options


@pytest.fixture
def url(real_s3: ObjectStore, tmp_path: Path) -> str:
    """A prefix of the test's own."""
    return f"{real_s3.url}/{tmp_path.name}"


@pytest.fixture
def store(url: str) -> Store:
    """A store with a run that has no shards."""
    store = Store(f"{url}/store")
    store.create_run(run_record(RUN))
    return store


@pytest.fixture
def filled(url: str, tmp_path: Path) -> Store:
    """A store of two shards that lie on the local disk, three images each."""
    store = Store(f"{url}/store")
    write_tars(tmp_path / "source", 2, 3)
    label_source(store, RUN, str(tmp_path / "source"), FOUND)
    return store


def at_once(call: Callable[[int], Any]) -> list[Any]:
    """What calls with 0, 1, ... return that start at one moment."""
    barrier, results = threading.Barrier(N_AT_ONCE), [None] * N_AT_ONCE

    def run(number: int) -> None:
        barrier.wait()
        results[number] = call(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(N_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class TestWrites:
    """The one thing that commits ask of an object store: a name is written once."""

    def test_a_second_conditional_write_is_refused_and_changes_nothing(self, url: str) -> None:
        filesystem, path = open_filesystem(f"{url}/object")
        assert write_whole(filesystem, path, b"first", if_absent=True)
        assert not write_whole(filesystem, path, b"second", if_absent=True)
        assert filesystem.cat_file(path) == b"first"

    def test_of_conditional_writes_at_once_the_one_that_is_told_so_stands(self, url: str) -> None:
        filesystem, path = open_filesystem(f"{url}/object")
        written = at_once(lambda number: write_whole(filesystem, path, b"%d" % number, if_absent=True))
        assert sorted(written) == [False] * (N_AT_ONCE - 1) + [True]
        assert filesystem.cat_file(path) == b"%d" % written.index(True)

    def test_a_conditional_write_whose_answer_is_lost_is_known_to_be_its_own(
        self, url: str, options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = urlsplit(options["endpoint_url"])
        proxy = FaultyS3((str(server.hostname), int(server.port or 0)))
        proxy.start()
        monkeypatch.setitem(fsspec.config.conf, "s3", {**options, "endpoint_url": proxy.url})
        filesystem, path = open_filesystem(f"{url}/object")
        proxy.inject(Fault.CUT_AFTER, method="PUT")
        assert write_whole(filesystem, path, b"content", if_absent=True)
        assert proxy.injected == {Fault.CUT_AFTER: 1}
        assert [method for method, _ in proxy.requests].count("PUT") == 2
        proxy.stop()

    def test_a_listing_of_several_pages_is_whole(self, store: Store) -> None:
        names = {f"{number:05d}.parquet" for number in range(1010)}
        store.filesystem.pipe({store.layout.run(RUN).images(name): b"x" for name in names})
        assert store.run(RUN).list_images().keys() == names


class TestCommits:
    """Shards are committed once, and seen by all as they were committed."""

    def test_of_committers_at_once_one_commits_and_its_labels_stand_beside_its_images(self, store: Store) -> None:
        committed = at_once(lambda number: commit_shard(store, RUN, "0", n_rows=3 + number, n_labels=1 + number))
        assert sorted(committed) == [False] * (N_AT_ONCE - 1) + [True]
        winner = committed.index(True)
        counted = "SELECT (SELECT count(*) FROM images), (SELECT count(*) FROM labels)"
        assert rows(store.url, counted) == [(3 + winner, (3 + winner) * (1 + winner))]

    def test_a_shard_that_is_committed_anew_is_read_as_it_is_now(self, store: Store) -> None:
        commit_shard(store, RUN, "0", n_rows=2, etag="v1")
        assert commit_shard(store, RUN, "0", n_rows=5, etag="v2", replace=True)
        assert len(store.run(RUN).list_images()) == len(store.run(RUN).list_labels()) == 1
        assert store.run(RUN).read_version(store.run(RUN).committed()["0"]).etag == "v2"
        assert rows(store.url, "SELECT count(*) FROM images") == [(5,)]

    @pytest.mark.parametrize("name", ["a/b", "größe", "a[1]*?", "100%", "a+b c", "..", "#;=&"])
    def test_a_strange_name_comes_back_from_the_listing_as_itself(self, store: Store, name: str) -> None:
        commit_shard(store, RUN, name, n_rows=1)
        committed = store.run(RUN).committed()
        assert len(committed) == 1
        assert store.run(RUN).read_keys(name, committed[name]) == {f"{name}-0"}

    def test_a_compaction_keeps_every_row_and_leaves_a_whole_store(self, filled: Store) -> None:
        before = all_rows(filled)
        compact(filled)
        (name,) = filled.run(RUN).list_images()
        assert is_compacted(name)
        assert {**all_rows(filled), "spellings": before["spellings"]} == before
        verified = verify_run(filled.run(RUN))
        assert (verified.n_files, verified.n_images, verified.findings) == (1, 6, [])

    def test_damage_is_found_taken_out_and_labelled_anew(self, filled: Store, tmp_path: Path) -> None:
        before = all_rows(filled)
        Damager(filled, RUN, "00001.parquet").flip("labels", 0.02)
        assert kinds(verify_run(filled.run(RUN))) == {"unreadable"}
        assert repair(filled) == ["taken out"]
        assert list(filled.run(RUN).committed().by_stem) == ["00000"]
        label_source(filled, RUN, str(tmp_path / "source"), FOUND)
        assert verify_run(filled.run(RUN)).findings == []
        assert all_rows(filled) == before


class TestLock:
    """One job holds a run."""

    @pytest.mark.parametrize("is_expired", [False, True])
    def test_of_takers_at_once_one_takes_a_free_or_an_expired_lock(self, store: Store, is_expired: bool) -> None:
        if is_expired:
            RunLock(store.run(RUN), lease_s=0).take()

        def take(_: int) -> bool:
            try:
                RunLock(store.run(RUN)).take()
            except RunLockedError:
                return False
            return True

        assert sorted(at_once(take)) == [False] * (N_AT_ONCE - 1) + [True]
        assert len(read_locks(store.run(RUN))) == 1

    def test_a_released_lock_is_gone_and_another_job_takes_it(self, store: Store) -> None:
        lock = RunLock(store.run(RUN))
        lock.take()
        assert lock.renew()
        lock.release()
        assert read_locks(store.run(RUN)) == []
        RunLock(store.run(RUN)).take()


class FileRecognizer:
    """Writes one small file where a recognizer writes its folder."""

    def save_pretrained(self, path: str | Path) -> None:
        Path(path, "model.safetensors").write_bytes(b"weights")


def test_checkpoints_come_back_and_those_deleted_are_gone(url: str) -> None:
    checkpoints, tensors = Checkpoints(f"{url}/run"), {"a//b": torch.arange(6.0).reshape(2, 3)}
    state = TrainingState(step=10, positions=[Position(3, 1)], settings={"steps": 40}, best_recall=0.1 + 0.2)
    for step in (10, 20, 30):
        checkpoints.write(FileRecognizer(), replace(state, step=step), tensors)
    checkpoints.prune(keep=1, best_step=10)

    assert Checkpoints(f"{url}/run").steps() == [10, 30]
    assert checkpoints.read_state(30) == replace(state, step=30)
    assert torch.equal(checkpoints.read_tensors(30)["a//b"], tensors["a//b"])


def test_a_folder_is_packed_to_a_place_that_was_emptied(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    pack_folder(str(tmp_path), f"{url}/shards")
    filesystem, path = open_filesystem(f"{url}/shards")
    packed = filesystem.cat_file(f"{path}/00000.tar")
    filesystem.rm_file(f"{path}/00000.tar")
    with pytest.raises(PackError, match=r"(does not exist|holds 0 files)"):
        pack_folder(f"{url}/shards", str(tmp_path / "out"))
    pack_folder(str(tmp_path), f"{url}/shards")
    assert filesystem.cat_file(f"{path}/00000.tar") == packed


@pytest.fixture(scope="module")
def tagstream(real_s3: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandProcess]:
    """The command in a process with the store's environment."""
    folder = tmp_path_factory.mktemp("commands")
    environment = {**os.environ, **real_s3.environment, "TAGSTREAM_CACHE": str(folder / "cache")}
    with command_process(environment, folder) as run:
        yield run


@dataclass(frozen=True, slots=True)
class Labelled:
    """A source and its store, and what the jobs said that labelled it."""

    source: str
    store: str
    jobs: list[subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def labelled(
    tagstream: CommandProcess, real_s3: ObjectStore, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Labelled:
    """Two shards are labelled, then again, then a third one is there and they are labelled again."""
    settings = tmp_path_factory.mktemp("settings") / "label.toml"
    settings.write_text("top_k = 5\nbatch_size = 4\nmax_image_pixels = 50_000\n")
    source, store = f"{real_s3.url}/journey/source", f"{real_s3.url}/journey/store"
    filesystem, path = open_filesystem(source)
    wide = ("wide.png", encode(Image.new("RGB", (300, 200), (20, 120, 200)), "PNG"))
    filesystem.pipe_file(f"{path}/00000.tar", shard_bytes(0, 4))
    filesystem.pipe_file(f"{path}/00001.tar", tar_bytes([wide, *sample_members("good", 9)]))
    label = ("label", source, "--store", store, "--model", tiny_model, "--config", settings, "--lock")
    jobs = [tagstream(*label), tagstream(*label)]
    filesystem.pipe_file(f"{path}/00002.tar", shard_bytes(2, 3))
    return Labelled(source, store, [*jobs, tagstream(*label)])


@pytest.fixture
def copied(labelled: Labelled, url: str) -> str:
    """A copy of the store, to be changed."""
    filesystem, path = open_filesystem(labelled.store)
    _, target = open_filesystem(f"{url}/store")
    for name in filesystem.find(path):
        filesystem.pipe_file(name.replace(path, target, 1), filesystem.cat_file(name))
    return f"{url}/store"


class TestJourney:
    """The command with source and store on the object store."""

    def test_first_all_shards_are_labelled_then_none_then_the_new_one(self, labelled: Labelled) -> None:
        assert [job.returncode for job in labelled.jobs] == [0, 0, 0], labelled.jobs
        first, second, third = (job.stdout for job in labelled.jobs)
        assert first.startswith("Labelled 5 images in 2 shards: ")
        assert second.startswith("Nothing to do: all 2 shards are labelled already")
        assert third.startswith("Labelled 3 images in 1 shard: ")

    def test_the_store_is_whole_and_holds_every_image_once(self, tagstream: CommandProcess, labelled: Labelled) -> None:
        status, verified = tagstream("status", labelled.store), tagstream("status", labelled.store, "--verify")
        assert (status.returncode, verified.returncode) == (0, 0), verified.stdout
        assert "9 = 8 labelled + 1 rejected, in 3 shards" in status.stdout
        assert "source      3 shards now: all committed" in status.stdout
        assert "3 files of images with their labels read, 9 images" in verified.stdout
        assert rows(labelled.store, "SELECT shard, list(key ORDER BY index) FROM images GROUP BY ALL ORDER BY ALL") == [
            ("00000", ["000000", "000001", "000002", "000003"]),
            ("00001", ["wide", "good"]),
            ("00002", ["000006", "000007", "000008"]),
        ]

    def test_the_result_of_a_query_goes_to_the_object_store(
        self, tagstream: CommandProcess, labelled: Labelled, url: str
    ) -> None:
        query = "SELECT shard, count(*) AS n FROM labels GROUP BY ALL ORDER BY ALL"
        asked = tagstream("sql", labelled.store, query, "--out", f"{url}/counts.parquet")
        assert asked.returncode == 0, asked.stderr
        filesystem, path = open_filesystem(f"{url}/counts.parquet")
        with filesystem.open(path, "rb") as file:
            counts = pq.read_table(file).to_pylist()
        assert [(row["shard"], row["n"]) for row in counts] == rows(labelled.store, query)

    def test_recall_is_that_of_the_labels_and_truths_in_the_store(
        self, tagstream: CommandProcess, labelled: Labelled
    ) -> None:
        asked = tagstream("recall", labelled.store, "--k", 5, "--format", "json")
        found = {row["measure"]: row["value"] for row in json.loads(asked.stdout)}
        listed = "list_contains((SELECT list(label) FROM labels l WHERE l.image_id = i.image_id), 'sky')"
        is_listed = rows(labelled.store, f"SELECT {listed} FROM images i WHERE status = 'labelled'")
        # All have two truths, the sky and a thing that is never listed.
        assert found["recall_macro"] == pytest.approx(sum(sky for (sky,) in is_listed) / len(is_listed) / 2)
        assert found["recall_macro"] > 0

    def test_a_report_goes_to_the_object_store_with_the_pictures_of_its_source(
        self, tagstream: CommandProcess, labelled: Labelled, url: str
    ) -> None:
        made = tagstream("report", labelled.store, "--out", f"{url}/report.html")
        assert made.returncode == 0, made.stderr
        assert ": 8 pictures, " in made.stdout
        filesystem, path = open_filesystem(f"{url}/report.html")
        assert filesystem.cat_file(path).startswith(b"<!doctype html>")

    def test_an_export_holds_the_images_of_the_source(
        self, tagstream: CommandProcess, labelled: Labelled, tmp_path: Path
    ) -> None:
        made = tagstream("export", labelled.store, "--to", "csv", "--out", tmp_path / "csv", "--images")
        assert made.returncode == 0, made.stderr
        given = [jpeg(seed) for seed in (0, 1, 2, 3, 6, 7, 8, 9)]
        assert sorted(path.read_bytes() for path in (tmp_path / "csv" / "data").iterdir()) == sorted(given)

    def test_a_compacted_store_holds_the_same_and_is_whole(self, tagstream: CommandProcess, copied: str) -> None:
        before = {table: read_table(copied, table) for table in ("images", "labels")}
        compacted, verified = tagstream("compact", copied), tagstream("status", copied, "--verify")
        assert "3 shards in 1 files, before in 3" in compacted.stdout
        assert "1 files of images with their labels read, 9 images" in verified.stdout
        assert verified.returncode == 0
        assert {table: read_table(copied, table) for table in before} == before

    def test_what_was_too_large_is_labelled_when_it_is_tried_again(
        self, tagstream: CommandProcess, copied: str
    ) -> None:
        others = "SELECT * FROM images WHERE key != 'wide' ORDER BY image_id"
        before = rows(copied, others)
        tried = tagstream("retry", copied, "--error", "ImageTooLarge")
        assert tried.returncode == 0, tried.stderr
        assert tried.stdout.startswith("Tried 1 rejected sample of 1 shard again: 1 labelled, 0 still rejected")
        assert rows(copied, "SELECT status, n_labels > 0 FROM images WHERE key = 'wide'") == [("labelled", True)]
        assert rows(copied, others) == before
