"""Ray's side of reading shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataflow.datasource import ShardDatasource, group_shards
from pipeline.errors import StorageError
from pipeline.sources.batches import read_batches_or_failure
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from tests.fixtures.corpus import tar_bytes


def test_a_datasource_has_one_read_task_a_shard(tmp_path: Path) -> None:
    for shard, n_samples in enumerate((1, 2, 3)):
        members = ((f"{number}.jpg", b"image") for number in range(n_samples))
        (tmp_path / f"{shard}.tar").write_bytes(tar_bytes(members))
    shards = find_source(str(tmp_path)).shards
    source = ShardDatasource(shards, 8)
    tasks = source.get_read_tasks(200)
    assert [tuple(task.metadata.input_files) for task in tasks] == [(shard.url,) for shard in shards]
    assert [sum(batch["n_samples"][0].as_py() for batch in task()) for task in tasks] == [1, 2, 3]
    assert source.estimate_inmemory_data_size() == sum(shard.size or 0 for shard in shards)


def test_a_shard_that_cannot_be_read_ends_the_work_or_is_told_as_its_last_row(tmp_path: Path) -> None:
    gone = Shard("a", str(tmp_path / "a.tar"), "tar")
    (ending,) = ShardDatasource([gone], 8).get_read_tasks(1)
    (telling,) = ShardDatasource([gone], 8, read=read_batches_or_failure).get_read_tasks(1)
    with pytest.raises(StorageError, match="cannot read shard a"):
        list(ending())
    (row,) = [row for batch in telling() for row in batch.to_pylist()]
    assert (row["shard"], row["samples"], row["n_samples"]) == ("a", [], None)
    assert row["failure"].startswith("cannot read shard a (")


def test_tiny_shards_are_read_by_one_task_in_their_order(tmp_path: Path) -> None:
    for shard in range(5):
        (tmp_path / f"{shard}.tar").write_bytes(tar_bytes([(f"{shard}.jpg", b"image")]))
    shards = find_source(str(tmp_path)).shards
    source = ShardDatasource(shards, 8, groups=group_shards(shards, 1 << 20, 2))
    tasks = source.get_read_tasks(200)
    assert [[row["shard"] for batch in task() for row in batch.to_pylist()] for task in tasks] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        ([4, 4, 4], 9, [[4, 4], [4]]),
        ([20, 4, 4], 9, [[20], [4, 4]]),
        ([4, 20, 4], 9, [[4], [20], [4]]),
        ([4, None, 4], 9, [[4], [None], [4]]),
        ([1, 1, 1], 0, [[1], [1], [1]]),
        ([1, 1, 1], 2, [[1, 1], [1]]),
        ([], 9, []),
    ],
)
def test_a_group_fits_into_a_block(sizes: list[int | None], most: int, expected: list[list[int | None]]) -> None:
    shards = [Shard(str(number), f"{number}.tar", "tar", size) for number, size in enumerate(sizes)]
    groups = group_shards(shards, 10, most)
    assert [[shard.size for shard in group] for group in groups] == expected
