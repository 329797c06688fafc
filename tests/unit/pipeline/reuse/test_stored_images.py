"""Images whose labels are reused are found in the stores that hold them, wherever compaction has put them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import StoreError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.reuse.known_images import ImageIndex
from pipeline.reuse.order import Place, ReuseOrder
from pipeline.reuse.stored_images import StoredImages, find_others
from pipeline.store.run import Run
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from tests.fixtures.stored.tables import commit_shard, run_record

SHARDS = ["a/1", "b", "c"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a run of three shards of two images, one of another fingerprint, and one that is to reuse labels."""
    store = Store(str(tmp_path / "store"))
    for run, fingerprint in (("first", "f"), ("strange", "g"), ("own", "f")):
        store.create_run(run_record(run, fingerprint=fingerprint))
    for shard in SHARDS:
        commit_shard(store, "first", shard)
    commit_shard(store, "strange", "z")
    return store


def compact(run: Run) -> None:
    compact_run(run, read_vocabulary(None), lambda done, of: None)


def opened(run: Run, *stores: str) -> tuple[StoredImages, ReuseOrder]:
    order = ReuseOrder.read(run)
    assert order.write_part(run, order.next_part(find_others(run, "f", stores), [], ["new"], [0]))
    return StoredImages(run, ReuseOrder.read(run)), ReuseOrder.read(run)


def hash_of(run: Run, shard: str, index: int) -> str:
    images = run.read_images(shard, run.committed()[shard], ["index", "content_hash"])
    return str(images["content_hash"][index].as_py())


def test_shards_of_runs_of_one_fingerprint_are_found_in_a_fixed_order(store: Store, tmp_path: Path) -> None:
    other = Store(str(tmp_path / "other"))
    other.create_run(run_record("away", fingerprint="f"))
    commit_shard(other, "away", "y")
    found = list(find_others(store.run("own"), "f", [other.url]))
    assert found == [*(Place(None, "first", stem) for stem in ("a%2F1", "b", "c")), Place(other.url, "away", "y")]


@pytest.mark.parametrize("when", ["never", "before", "meanwhile"])
def test_rows_of_a_shard_are_those_that_were_committed_wherever_they_are_now(store: Store, when: str) -> None:
    first = store.run("first")
    expected = {shard: first.read_shard(shard, first.committed()[shard]) for shard in SHARDS}
    if when == "before":
        compact(first)
    images, _ = opened(store.run("own"))
    images.add_to(ImageIndex(), 3)
    if when == "meanwhile":
        compact(first)
    for number, shard in enumerate(SHARDS):
        # The second time from what is kept.
        for _ in range(2):
            rows = [table.sort_by("index") for table in images.read(number, [1])]
            assert rows == [table.filter(pa.compute.equal(table["index"], 1)) for table in expected[shard]]


def test_the_index_knows_what_is_committed_of_the_first_shards_without_some(store: Store) -> None:
    # All shards have the same two contents.
    hashes = [hash_of(store.run("first"), "b", index) for index in (0, 1)]
    commit_shard(store, "own", "late")
    images, order = opened(store.run("own"))
    index = ImageIndex()
    images.add_to(index, 3, without={0})
    shard, place = index.known(len(order.places)).find(pa.array(hashes))
    assert index.n_images == 4
    assert (shard.tolist(), place.tolist()) == ([1, 1], [0, 1])


def test_a_shard_that_is_gone_is_an_error_that_names_it(store: Store) -> None:
    images, _ = opened(store.run("own"))
    store.run("first").delete_files(["b.parquet"])
    with pytest.raises(StoreError, match="shard b of run first is gone"):
        images.read(1, [0])
