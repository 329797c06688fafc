"""Compaction of listed labels: the same rows in fewer files, whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.catalog.views import open_store
from pipeline.store.lists import RunLists
from pipeline.store.ownership import is_compacted
from pipeline.store.store import Store
from pipeline.upkeep import list_compaction
from pipeline.upkeep.verification import verify_run
from tests.fixtures.corpus import shard_bytes, write_tars
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.lists import add_list, name_list
from tests.fixtures.stored.verified import FOUND, RUN, compact

ANIMALS, PLANTS = name_list("animals", "dog", "cat"), name_list("plants", "rose")
LISTED = {ANIMALS: [("dog", 0.5), ("cat", 0.25)]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_tars(tmp_path / "source", 3, 4)
    return tmp_path / "source"


@pytest.fixture
def store(source: Path, tmp_path: Path) -> Store:
    """Three shards with a list; another one came to two of them."""
    store = Store(str(tmp_path / "store"))
    label_source(store, RUN, str(source), FOUND, listed=LISTED)
    add_list(store.run(RUN), PLANTS, [("rose", 0.125)], ["00000", "00002"])
    return store


def rows(store: Store) -> list[tuple[Any, ...]]:
    return open_store(store.url).sql("SELECT * FROM listed_labels ORDER BY ALL").fetchall()


def files(store: Store, title: str) -> list[Path]:
    return sorted(Path(store.root).glob(f"listed/run={RUN}/list={title}*/*.parquet"))


def test_the_rows_stay_the_same_in_one_file_a_list_sorted_by_name(store: Store) -> None:
    before = rows(store)
    compact(store)
    assert rows(store) == before
    (animals,), (plants,) = files(store, "animals"), files(store, "plants")
    assert is_compacted(animals.name)
    assert is_compacted(plants.name)
    labels = pq.read_table(animals).column("label").to_pylist()
    assert labels == sorted(labels)
    assert verify_run(store.run(RUN)).findings == []


def test_a_list_that_comes_after_a_compaction_goes_into_the_next(store: Store) -> None:
    compact(store)
    add_list(store.run(RUN), PLANTS, [("rose", 0.125)], ["00001"])
    before = rows(store)
    assert len(before) == 3 * 4 * 3
    assert len(files(store, "plants")) == 2
    compact(store)
    assert rows(store) == before
    assert len(files(store, "plants")) == 1


@pytest.mark.parametrize("with_list", [True, False])
def test_a_shard_that_is_labelled_again_leaves_its_former_scores_behind(
    source: Path, store: Store, with_list: bool
) -> None:
    compact(store)
    (source / "00001.tar").write_bytes(shard_bytes(7, 3))
    label_source(store, RUN, str(source), FOUND, changed="relabel", listed=LISTED if with_list else None)
    before = rows(store)
    shards = {row[1] for row in before if row[-2] == ANIMALS.version}
    assert ("00001" in shards) == with_list
    assert verify_run(store.run(RUN)).findings == []
    compact(store)
    assert rows(store) == before
    (file,) = files(store, "animals")
    assert set(pq.read_table(file).column("shard").to_pylist()) == shards


@pytest.mark.parametrize("step", ["write_rows", "move_whole", "RunLists"])
def test_killed_at_any_step_it_leaves_the_same_rows(store: Store, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    before = rows(store)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if step == "RunLists":
            patched.setattr(RunLists, "delete", lambda self, version, names: die() if list(names) else None)
        else:
            patched.setattr(list_compaction, step, die)
        with pytest.raises(KeyboardInterrupt):
            compact(store)
    assert rows(store) == before
    assert verify_run(store.run(RUN)).is_whole
    compact(store)
    assert rows(store) == before
    assert len(files(store, "animals")) == 1
    assert verify_run(store.run(RUN)).findings == []


def test_a_file_that_vanishes_meanwhile_is_left_to_whoever_took_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(store)
    read, others = list_compaction._read_content, []

    def read_after_another(*arguments: Any) -> Any:
        if not others:
            others.append(True)
            compact(store)
        return read(*arguments)

    monkeypatch.setattr(list_compaction, "_read_content", read_after_another)
    compact(store)
    assert rows(store) == before
