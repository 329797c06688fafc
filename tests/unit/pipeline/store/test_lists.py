"""Lists of a run: records, and which files count for which shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog.views import open_store
from pipeline.errors import StoreError
from pipeline.store import run as run_module
from pipeline.store.lists import RunLists
from pipeline.store.ownership import file_name
from pipeline.store.store import Store
from tests.fixtures.stored.lists import add_list, listed_table, name_list
from tests.fixtures.stored.tables import commit_shard, run_record, shard_tables

RUN = "run-1"
ANIMALS = name_list("animals", "cat", "dog")
CAT, DOG = [("cat", 0.5)], [("dog", 0.5)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record(RUN))
    for shard in ("a", "b"):
        commit_shard(store, RUN, shard)
    return store


def shown(store: Store) -> list[tuple[str, str]]:
    """Shard and label of every listed label."""
    return open_store(store.url).sql("SELECT DISTINCT shard, label FROM listed_labels ORDER BY ALL").fetchall()


def commit_with(store: Store, shard: str, labels: list[tuple[str, float]], **options: Any) -> bool:
    images, found = shard_tables(shard)
    listed = {ANIMALS.version: listed_table(images, labels)}
    return store.run(RUN).commit(shard, images, found, {"fingerprint": "f"}, listed=listed, **options)


def listed_files(store: Store) -> list[str]:
    return sorted(path.name for path in Path(store.root).glob("listed/*/*/*.parquet"))


def test_a_list_may_come_to_some_shards_first_and_to_others_later(store: Store) -> None:
    add_list(store.run(RUN), ANIMALS, CAT, ["a"])
    assert shown(store) == [("a", "cat")]
    add_list(store.run(RUN), ANIMALS, CAT)
    assert shown(store) == [("a", "cat"), ("b", "cat")]


def test_who_comes_second_with_the_scores_of_a_shard_changes_nothing(store: Store) -> None:
    add_list(store.run(RUN), ANIMALS, CAT, ["a"])
    committed = store.run(RUN).committed()["a"]
    images = store.run(RUN).read_shard("a", committed)[0]
    assert not RunLists(store.run(RUN)).add(ANIMALS.version, "a", committed, listed_table(images, DOG), {})
    assert shown(store) == [("a", "cat")]


def test_scores_of_a_former_generation_do_not_count_and_go_with_it(store: Store) -> None:
    add_list(store.run(RUN), ANIMALS, CAT, ["a"])
    kept = Path(store.layout.run(RUN).listed(ANIMALS.version, file_name("a"))).read_bytes()
    assert commit_with(store, "a", DOG, replaces=store.run(RUN).committed()["a"])
    assert (shown(store), listed_files(store)) == ([("a", "dog")], ["a!g1.parquet"])
    # As a job leaves them that was killed before it deleted them.
    Path(store.layout.run(RUN).listed(ANIMALS.version, file_name("a"))).write_bytes(kept)
    assert shown(store) == [("a", "dog")]


def test_scores_that_come_late_to_a_shard_that_was_labelled_again_are_taken_back(store: Store) -> None:
    former = store.run(RUN).committed()["a"]
    images = store.run(RUN).read_shard("a", former)[0]
    commit_shard(store, RUN, "a", etag="v2", replace=True)
    assert not RunLists(store.run(RUN)).add(ANIMALS.version, "a", former, listed_table(images, CAT), {})
    assert (shown(store), listed_files(store)) == ([], [])


def test_the_next_commit_of_a_shard_that_was_taken_out_does_not_find_its_scores(store: Store) -> None:
    add_list(store.run(RUN), ANIMALS, CAT, ["a"])
    store.run(RUN).delete_files([file_name("a")])
    assert shown(store) == []
    lists = RunLists(store.run(RUN))
    highest = lists.highest_generations([lists.files(ANIMALS.version, store.run(RUN).committed())])
    assert highest == {"a": 0}
    assert store.run(RUN).commit("a", *shard_tables("a"), {"fingerprint": "f"}, above=highest["a"])
    assert shown(store) == []


def test_listed_labels_of_a_commit_that_was_killed_are_not_seen_and_not_taken_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = run_module.write_whole

    def write_whole(filesystem: Any, path: str, content: bytes, **options: Any) -> bool:
        if "/images/" in path:
            raise OSError("killed")
        return write(filesystem, path, content, **options)

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "write_whole", write_whole)
        with pytest.raises(StoreError, match="killed"):
            commit_with(store, "c", CAT)
    assert (shown(store), listed_files(store)) == ([], ["c.parquet"])
    assert commit_with(store, "c", DOG)
    assert (shown(store), listed_files(store)) == ([("c", "dog")], ["c!g1.parquet"])


def test_the_record_of_a_list_is_written_once(store: Store) -> None:
    lists = RunLists(store.run(RUN))
    for created in ("2026-01-01", "2026-01-02"):
        lists.create(ANIMALS.record(RUN, created))
    lists.create(name_list("plants", "rose").record(RUN, "2025-01-01"))
    assert [(record.title, record.created) for record in lists.records()] == [
        ("plants", "2025-01-01"),
        ("animals", "2026-01-01"),
    ]


def test_a_damaged_record_is_told_with_what_to_do(store: Store) -> None:
    lists = RunLists(store.run(RUN))
    lists.create(ANIMALS.record(RUN, "2026-01-01"))
    Path(store.layout.run(RUN).list_record(ANIMALS.version)).write_text("{")
    with pytest.raises(StoreError, match=r"is damaged: .*; delete it, and `tagstream label --names` writes it again"):
        lists.records()
