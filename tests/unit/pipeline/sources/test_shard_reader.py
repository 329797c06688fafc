"""Shards of every kind: their samples, version and beginning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.image_folder import folder_shard
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard, kind_of_file
from pipeline.sources.shard_reader import open_if_exists, read_head, read_samples, read_version
from pipeline.storage.files import open_filesystem
from tests.fixtures.corpus import jpeg, tar_bytes, write_parquet

N_SAMPLES = 5
IMAGES = [jpeg(number) for number in range(N_SAMPLES)]


@pytest.fixture(params=["tar", "parquet", "folder"])
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Shard:
    """A shard of the images, in this order."""
    members = [(f"{number}.jpg", data) for number, data in enumerate(IMAGES)]
    if request.param == "tar":
        (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    elif request.param == "parquet":
        write_parquet(tmp_path / "a.parquet", N_SAMPLES, as_struct=False)
    else:
        for name, data in members:
            (tmp_path / name).write_bytes(data)
        return folder_shard(str(tmp_path), "a", find_source(str(tmp_path)).images)
    return find_source(str(tmp_path)).shards[0]


def images_of(shard: Shard) -> list[bytes | None]:
    return [sample.data for sample in read_samples(shard, MAX_SAMPLE_BYTES)]


def test_all_samples_are_read_in_order(shard: Shard) -> None:
    assert images_of(shard) == IMAGES


def test_of_wanted_samples_no_others_are_read(shard: Shard) -> None:
    files = tuple(shard.files[index] for index in (1, 3)) if shard.files else ()
    assert images_of(replace(shard, wanted=(1, 3), files=files)) == [IMAGES[1], IMAGES[3]]


def test_an_image_above_the_limit_is_a_fault(shard: Shard) -> None:
    samples = list(read_samples(shard, 1))
    assert [(sample.data, sample.error) for sample in samples] == [(None, "MemberTooLarge")] * N_SAMPLES


def test_the_version_of_an_unchanged_shard_is_the_listed_one(shard: Shard) -> None:
    assert read_version(shard) == (shard.size, shard.etag)


def test_a_beginning_holds_the_first_samples_alone(shard: Shard) -> None:
    head = read_head(shard, 2)
    assert head.n_samples == 2
    assert images_of(head.shard) == IMAGES[:2]
    assert 0 < head.n_bytes < head.shard_bytes == shard.size


def test_the_beginning_of_a_short_shard_is_all_of_it(shard: Shard) -> None:
    head = read_head(shard, N_SAMPLES + 1)
    assert (head.n_samples, head.n_bytes) == (N_SAMPLES, shard.size)


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_the_beginning_of_a_file_that_is_gone_is_an_error_with_its_name(tmp_path: Path, name: str) -> None:
    shard = Shard("a", str(tmp_path / name), kind_of_file(name) or "tar")
    with pytest.raises(StorageError, match=rf"cannot read shard a .*{name}"):
        read_head(shard, 1)


@pytest.mark.parametrize("name", ["gone.tar", "gone.parquet", "below/gone.tar", "a\0b.tar", "x" * 300])
def test_a_file_that_is_gone_is_not_opened(tmp_path: Path, name: str) -> None:
    filesystem, root = open_filesystem(str(tmp_path))
    assert open_if_exists(filesystem, f"{root}/{name}") is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.tar", "tar"),
        ("a.TAR.GZ", "tar"),
        ("a.tgz", "tar"),
        ("a.Parquet", "parquet"),
        ("tar", None),
        ("a.jpg", None),
    ],
)
def test_a_suffix_tells_what_kind_of_shard_a_file_is(path: str, kind: str | None) -> None:
    assert kind_of_file(path) == kind
