"""How many images a source holds, without reading it."""

from __future__ import annotations

import errno
import gzip
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import StorageError
from pipeline.forecast.extent import estimate_extent, measure_extent
from pipeline.sources.batches import read_batches
from pipeline.sources.image_folder import folder_shard
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from pipeline.sources.shard_reader import Head, read_head
from tests.fixtures.corpus import jpeg, tar_bytes

JPEG = jpeg(0)


def tar(n_samples: int, n_bytes: int = 3000) -> bytes:
    members = [
        member
        for number in range(n_samples)
        for member in ((f"{number}.jpg", JPEG.ljust(n_bytes, b"x")), (f"{number}.txt", b"a caption"))
    ]
    return tar_bytes(members)


def shards_of(folder: Path) -> list[Shard]:
    return find_source(str(folder)).shards


class TestHeads:
    """The beginning of one shard."""

    def test_a_tars_head_ends_where_its_next_sample_begins(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(tar(10))
        (shard,) = shards_of(tmp_path)
        head = read_head(shard, 4)
        # Header and content of the image, header and block of the caption.
        assert (head.n_samples, head.n_bytes) == (4, 4 * (512 + 3072 + 512 + 512))
        assert head.shard_bytes == (tmp_path / "a.tar").stat().st_size

    def test_the_head_is_what_is_then_read_and_nothing_behind_it(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(tar(10))
        (shard,) = shards_of(tmp_path)
        batches = list(read_batches(read_head(shard, 4).shard, 3))
        keys = [key for batch in batches for key in batch.column("samples")[0].values.field("key").to_pylist()]
        assert keys == ["0", "1", "2", "3"]
        assert batches[-1].column("n_samples").to_pylist() == [4]

    def test_a_shard_that_is_shorter_is_taken_whole(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(tar(3))
        (shard,) = shards_of(tmp_path)
        head = read_head(shard, 4)
        assert (head.n_samples, head.n_bytes) == (3, head.shard_bytes)

    def test_of_a_compressed_tar_the_bytes_are_those_of_its_file(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0)
        members = [(f"{number}.jpg", noise.bytes(20_000)) for number in range(100)]
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes(members)))
        (shard,) = shards_of(tmp_path)
        head = read_head(shard, 50)
        assert head.n_samples == 50
        assert head.n_bytes / head.shard_bytes == pytest.approx(0.5, abs=0.05)

    def test_a_parquet_file_says_how_many_rows_it_has(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"bytes": [JPEG] * 20}), tmp_path / "a.parquet")
        (shard,) = shards_of(tmp_path)
        head = read_head(shard, 5)
        assert (head.n_samples, head.shard.wanted) == (5, (0, 1, 2, 3, 4))
        assert head.n_bytes == pytest.approx(head.shard_bytes / 4, abs=1)

    @pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
    def test_a_storage_that_fails_is_not_taken_for_a_damaged_shard(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        (tmp_path / name).write_bytes(tar(3))
        (shard,) = shards_of(tmp_path)

        class FailingFile(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(LocalFileSystem, "open", lambda *_, **__: FailingFile(tar(3)))
        with pytest.raises(StorageError, match=r"cannot read shard a .*Input/output error"):
            read_head(shard, 2)

    @pytest.mark.parametrize("content", [b"", b"no archive" * 100])
    def test_what_is_no_archive_is_one_row(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.tar").write_bytes(content)
        (shard,) = shards_of(tmp_path)
        assert read_head(shard, 5).n_samples == 1
        assert len(list(read_batches(read_head(shard, 5).shard, 8))) == 1


class TestExtent:
    """All of a source."""

    def test_of_shards_that_were_read_to_their_ends_the_number_is_known(self, tmp_path: Path) -> None:
        for number, n_samples in enumerate([3, 7, 1]):
            (tmp_path / f"{number}.tar").write_bytes(tar(n_samples))
        extent = measure_extent(shards_of(tmp_path), 100, seed=0)
        assert (extent.n_images.low, extent.n_images.value, extent.n_images.high) == pytest.approx((11, 11, 11))
        assert (extent.is_whole, extent.n_sampled) == (True, 11)
        assert not measure_extent(shards_of(tmp_path), 5, seed=0).is_whole

    def test_of_a_folder_the_number_is_known_from_its_listing(self, tmp_path: Path) -> None:
        for number in range(30):
            (tmp_path / f"{number}.jpg").write_bytes(JPEG)
        source = find_source(str(tmp_path))
        extent = measure_extent([folder_shard(source.root, "all", source.images)], 10, seed=0)
        assert (extent.n_images.low, extent.n_images.value, extent.n_images.high) == (30, 30, 30)
        (head,) = extent.heads
        assert (head.n_samples, len(head.shard.files)) == (10, 10)
        assert not extent.is_whole
        assert measure_extent([folder_shard(source.root, "all", source.images)], 30, seed=0).is_whole

    def test_the_draw_depends_on_the_seed_alone(self, tmp_path: Path) -> None:
        for number in range(40):
            (tmp_path / f"{number:02d}.tar").write_bytes(tar(2))
        drawn = [[head.shard.name for head in measure_extent(shards_of(tmp_path), 8, seed).heads] for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(set(drawn[0])) == 8

    def test_where_no_listing_tells_sizes_those_that_were_seen_stand_for_all(self) -> None:
        shards = [Shard(f"{number}", f"http://host/{number}.tar", "tar") for number in range(10)]
        heads = [Head(shards[0], 5, 500, 1000), Head(shards[1], 5, 500, 3000)]
        extent = estimate_extent(shards, heads)
        assert (extent.n_bytes, extent.n_images.value) == (20_000, pytest.approx(200))

    def test_the_interval_holds_the_truth_about_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(0)
        n_hit, n_draws = 0, 400
        sizes = rng.lognormal(14, 0.8, 200)
        bytes_an_image = rng.lognormal(10, 0.4, 200)
        truth = (sizes / bytes_an_image).sum()
        shards = [Shard(f"{number}", "", "tar", size=round(size)) for number, size in enumerate(sizes)]
        for _ in range(n_draws):
            drawn = rng.choice(200, 30, replace=False)
            heads = [
                Head(replace(shards[number]), round(sizes[number] / bytes_an_image[number]), round(sizes[number]), 0)
                for number in drawn
            ]
            n_images = estimate_extent(shards, heads).n_images
            n_hit += n_images.low <= truth <= n_images.high
        assert 0.88 <= n_hit / n_draws <= 0.99
