"""The files of a run as they lie in the store, readable or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.run_files import list_run_files
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from tests.fixtures.servers.faulty_s3 import Fault, FaultyS3
from tests.fixtures.stored.damage import Damager
from tests.fixtures.stored.tables import commit_shard, run_record

RUN = "run-1"
GARBAGE = b"PAR1" + bytes(500) + b"PAR1"


def fill(store: Store) -> Store:
    """Makes a run of a compacted file with the shards a and b, and of a file with a later generation of b."""
    store.create_run(run_record(RUN))
    for shard in ("a", "b"):
        commit_shard(store, RUN, shard)
    compact_run(store.run(RUN), read_vocabulary(None), lambda done, total: None)
    commit_shard(store, RUN, "b", n_rows=1, replace=True)
    return store


@pytest.fixture
def damager(store: Store) -> Damager:
    """Damages the compacted file of such a run."""
    (name,) = [name for name in fill(store).run(RUN).list_images() if name.startswith("compacted!")]
    return Damager(store, RUN, name)


def owners_of(store: Store) -> dict[str, str]:
    return {stem: shard.file for stem, shard in list_run_files(store.run(RUN)).committed.by_stem.items()}


def test_of_a_whole_run_it_is_what_the_run_itself_says(any_store: Store) -> None:
    run = fill(any_store).run(RUN)
    files = list_run_files(run)
    assert (files.committed, files.unreadable) == (run.committed(), [])
    assert (files.images.keys(), files.labels.keys()) == (run.list_images().keys(), run.list_labels().keys())


def test_a_run_that_was_not_made_yet_has_no_files(any_store: Store) -> None:
    files = list_run_files(any_store.run(RUN))
    assert (files.images, files.labels, len(files.committed), files.unreadable) == ({}, {}, 0, [])


def test_the_size_of_a_file_is_that_of_images_and_labels_together(store: Store) -> None:
    commit_shard(store, RUN, "a")
    layout = store.layout.run(RUN)
    paths = [Path(layout.images("a.parquet")), Path(layout.labels("a.parquet"))]
    sizes = [path.stat().st_size for path in paths]
    assert list_run_files(store.run(RUN)).size_bytes("a.parquet") == sum(sizes)
    paths[1].unlink()
    assert list_run_files(store.run(RUN)).size_bytes("a.parquet") == sizes[0]
    assert list_run_files(store.run(RUN)).size_bytes("other.parquet") == 0


class TestDamagedCompactedFiles:
    """What a file of several shards holds where it does not say so itself."""

    @pytest.mark.parametrize("content", [GARBAGE, b"", b"PAR1"])
    def test_its_labels_tell_what_images_do_not(self, damager: Damager, content: bytes) -> None:
        expected = owners_of(damager.store)
        damager.write("images", content)
        assert owners_of(damager.store) == expected == {"a": damager.name, "b": "b!g1.parquet"}
        assert list_run_files(damager.store.run(RUN)).committed.superseded == {damager.name: ["b"]}

    @pytest.mark.parametrize("what", ["images", "labels"])
    def test_files_of_former_versions_tell_by_the_rows_of_their_labels(self, damager: Damager, what: str) -> None:
        # Those listed the shards with the images alone.
        damager.describe("labels", "shards", None)
        damager.write(what, GARBAGE)
        assert owners_of(damager.store) == {"a": damager.name, "b": "b!g1.parquet"}

    @pytest.mark.parametrize("are_deleted", [False, True])
    def test_one_that_nothing_tells_of_is_neither_owner_nor_ownerless(
        self, damager: Damager, are_deleted: bool
    ) -> None:
        damager.write("images", GARBAGE)
        damager.delete("labels") if are_deleted else damager.write("labels", GARBAGE)
        files = list_run_files(damager.store.run(RUN))
        assert files.unreadable == [damager.name]
        assert damager.name in files.images
        assert (files.committed.ownerless, set(files.committed.files)) == ([], {"b!g1.parquet"})
        assert set(files.committed.by_stem) == {"b"}

    def test_a_storage_that_fails_is_no_damage(self, s3: str, faulty_s3: FaultyS3, tmp_path: Path) -> None:
        store = fill(Store(f"{s3}/{tmp_path.name}/store"))
        faulty_s3.inject(Fault.INTERNAL_ERROR, method="GET", part="/images/run%3Drun-1/compacted", times=None)
        with pytest.raises(StorageError, match=r"cannot read .*images/run=run-1/compacted"):
            list_run_files(store.run(RUN))
        assert faulty_s3.injected[Fault.INTERNAL_ERROR] > 0
