"""How many images a source holds, without reading it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.forecast.extent import estimate_extent, measure_extent
from pipeline.sources.image_folder import folder_shard
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from pipeline.sources.shard_reader import Head
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
