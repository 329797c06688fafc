"""Reading a shard as batches that are cut at fixed places."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import batches as batches_module
from pipeline.sources.batches import BATCHES, cut_batches, read_batches
from pipeline.sources.listing import find_source
from pipeline.sources.sample import Sample, fault
from pipeline.sources.shard import Shard
from tests.fixtures.corpus import tar_bytes


def samples(*sizes: int | None) -> list[Sample]:
    return [
        Sample(key=str(number), data=bytes(size)) if size is not None else fault(str(number), "Error", "message")
        for number, size in enumerate(sizes)
    ]


def write_tar(folder: Path, n_samples: int) -> Shard:
    """A shard of samples whose images are one byte each."""
    folder.mkdir(exist_ok=True)
    (folder / "0.tar").write_bytes(tar_bytes((f"{number:03}.jpg", bytes([number])) for number in range(n_samples)))
    return find_source(str(folder)).shards[0]


def rows(batch: pa.Table) -> list[dict[str, object]]:
    return batch.column("samples").to_pylist()[0]


class TestCutting:
    """Where batches begin and end."""

    @pytest.mark.parametrize(
        ("n_samples", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])]
    )
    def test_batches_have_the_given_size_but_for_the_last(self, n_samples: int, sizes: list[int]) -> None:
        assert [len(batch) for batch in cut_batches(samples(*[1] * n_samples), 3)] == sizes

    def test_a_batch_is_closed_before_its_images_are_too_large_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batches_module, "_MAX_BATCH_BYTES", 10)
        batches = cut_batches(samples(4, 6, 1, 50, 3, None, 7, 1), 100)
        assert [[sample.key for sample in batch] for batch in batches] == [
            ["0", "1"],
            ["2"],
            ["3"],
            ["4", "5", "6"],
            ["7"],
        ]

    def test_samples_are_taken_one_by_one(self) -> None:
        taken: list[int] = []

        def endless() -> Iterator[Sample]:
            for number in range(10**9):
                taken.append(number)
                yield samples(1)[0]

        batches = cut_batches(endless(), 2)
        next(batches)
        assert len(taken) <= 3


class TestBatches:
    """The rows that travel to the labelling pool."""

    def test_every_sample_is_there_with_all_that_came_along(self, tmp_path: Path) -> None:
        members = [("a.jpg", b"A"), ("a.txt", b"a cat"), ("a.json", b'{"labels": ["cat"]}'), ("b.txt", b"alone")]
        (tmp_path / "0.tar").write_bytes(tar_bytes(members))
        (batch,) = read_batches(find_source(str(tmp_path)).shards[0], 8)
        labelled, rejected = rows(batch)
        assert labelled == {
            "key": "a",
            "data": b"A",
            "caption": "a cat",
            "truth": ["cat"],
            "error": None,
            "message": None,
        }
        assert (rejected["key"], rejected["data"], rejected["error"]) == ("b", None, "NoImage")

    def test_every_batch_is_one_row_of_the_schema(self, tmp_path: Path) -> None:
        batches = list(read_batches(write_tar(tmp_path, 7), 3))
        assert [batch.num_rows for batch in batches] == [1, 1, 1]
        assert all(batch.schema == BATCHES for batch in batches)

    def test_batches_know_their_place_in_the_shard(self, tmp_path: Path) -> None:
        batches = list(read_batches(write_tar(tmp_path, 7), 3))
        assert [batch["first_index"][0].as_py() for batch in batches] == [0, 3, 6]
        assert [row["data"] for batch in batches for row in rows(batch)] == [bytes([number]) for number in range(7)]

    @pytest.mark.parametrize("n_samples", [1, 6, 7])
    def test_the_last_batch_alone_tells_of_the_whole_shard(self, tmp_path: Path, n_samples: int) -> None:
        shard = write_tar(tmp_path, n_samples)
        *others, last = read_batches(shard, 3)
        assert [last[name][0].as_py() for name in ("n_samples", "source_size", "source_etag")] == [
            n_samples,
            shard.size,
            shard.etag,
        ]
        for batch in others:
            assert [batch[name][0].as_py() for name in ("n_samples", "source_size", "source_etag")] == [None] * 3

    def test_the_version_is_that_of_the_file_that_is_read_not_that_of_the_listing(self, tmp_path: Path) -> None:
        listed = write_tar(tmp_path, 1)
        write_tar(tmp_path, 50)
        os.utime(tmp_path / "0.tar", (5e8, 5e8))
        (batch,) = read_batches(listed, 100)
        assert batch["source_size"][0].as_py() == (tmp_path / "0.tar").stat().st_size != listed.size
        assert batch["source_etag"][0].as_py() == "500000000.000000"

    def test_an_unreadable_shard_is_one_batch_of_one_row(self, tmp_path: Path) -> None:
        (tmp_path / "0.tar").write_bytes(b"garbage")
        (batch,) = read_batches(find_source(str(tmp_path)).shards[0], 8)
        assert (batch["n_samples"][0].as_py(), rows(batch)[0]["error"]) == (1, "ArchiveUnreadable")

    def test_parquet_and_folders_are_read_alike(self, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()
        (tmp_path / "f").mkdir()
        pq.write_table(pa.table({"key": ["a.jpg", "b.jpg"], "bytes": [b"A", b"B"]}), tmp_path / "p" / "0.parquet")
        (tmp_path / "f" / "a.jpg").write_bytes(b"A")
        (tmp_path / "f" / "b.jpg").write_bytes(b"B")
        images = find_source(str(tmp_path / "f"))
        folder = Shard("bucket", images.root, "folder", 2, "digest", 0.0, tuple(images.images))
        (of_parquet,) = read_batches(find_source(str(tmp_path / "p")).shards[0], 8)
        (of_folder,) = read_batches(folder, 8)
        assert rows(of_parquet) == rows(of_folder)
        assert of_folder["source_etag"][0].as_py() == "digest"

    def test_reading_seconds_do_not_count_the_time_of_who_takes_the_batches(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 0.0

        def taking(samples: list[Sample], batch_size: int) -> Iterator[list[Sample]]:
            nonlocal now
            for batch in cut_batches(samples, batch_size):
                now += 1.0
                yield batch

        monkeypatch.setattr(batches_module.time, "perf_counter", lambda: now)
        monkeypatch.setattr(batches_module, "cut_batches", taking)
        seconds = []
        for batch in read_batches(write_tar(tmp_path, 6), 2):
            seconds.append(batch["read_s"][0].as_py())
            now += 100.0
        # One batch is read ahead, to know which is the last.
        assert seconds == [2.0, 1.0, 0.0]

    def test_the_same_shard_is_cut_alike_each_time(self, tmp_path: Path) -> None:
        shard = write_tar(tmp_path, 10)
        first, second = ([batch.drop_columns(["read_s"]) for batch in read_batches(shard, 4)] for _ in range(2))
        assert first == second
