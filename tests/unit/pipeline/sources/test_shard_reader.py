"""Shards of every kind: their samples, version and beginning."""

from __future__ import annotations

import errno
import gzip
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import StorageError
from pipeline.settings.limits import MAX_SAMPLE_BYTES
from pipeline.sources.batches import read_batches
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


def tar(n_samples: int) -> bytes:
    """Samples of an image of 3,000 bytes and a caption."""
    members = [
        ((f"{number}.jpg", IMAGES[0].ljust(3000, b"x")), (f"{number}.txt", b"a caption")) for number in range(n_samples)
    ]
    return tar_bytes(member for pair in members for member in pair)


def images_of(shard: Shard) -> list[bytes | None]:
    return [sample.data for sample in read_samples(shard, MAX_SAMPLE_BYTES)]


def test_all_samples_are_read_in_order(shard: Shard) -> None:
    assert images_of(shard) == IMAGES


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([(0, "a"), (2, "c")], ["a", "c"]),
        # It stood in front of others that are counted now.
        ([(1, "c"), (2, "d")], ["c", "d"]),
        # One that is gone is nobody's, so that the next one is not taken for it.
        ([(0, "a"), (1, "x"), (2, "c")], ["a", "\0", "c"]),
        ([(1, "x"), (2, "y")], []),
        # One of the same key in front of it is another one.
        ([(3, "a")], []),
    ],
)
def test_wanted_samples_that_stand_further_behind_now_are_found_by_their_key(
    tmp_path: Path, wanted: list[tuple[int, str]], found: list[str]
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([(f"{key}.jpg", key.encode()) for key in "abcde"]))
    (shard,) = find_source(str(tmp_path)).shards
    samples = list(read_samples(shard.reduced(wanted), MAX_SAMPLE_BYTES))
    assert [sample.key for sample in samples] == found


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
        *((f"a.tar.{codec}", "tar") for codec in ("bz2", "xz", "zst", "lz4")),
        ("a.TZST", "tar"),
        ("a.ZIP", "zip"),
        *((f"a.{suffix}", "parquet") for suffix in ("parq", "pq", "parquet.snappy", "parquet.gzip")),
        *((f"a.{suffix}", None) for suffix in ("tar.0", "tar.zst.part", "parquet.crc", "zst", "gz", "7z")),
        ("a.TAR.GZ", "tar"),
        ("a.tgz", "tar"),
        ("a.Parquet", "parquet"),
        ("tar", None),
        ("a.jpg", None),
    ],
)
def test_a_suffix_tells_what_kind_of_shard_a_file_is(path: str, kind: str | None) -> None:
    assert kind_of_file(path) == kind


class TestHeads:
    """The beginning of a file."""

    def test_a_tars_head_ends_where_its_next_sample_begins(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(tar(10))
        (shard,) = find_source(str(tmp_path)).shards
        head = read_head(shard, 4)
        # Header and content of the image, header and block of the caption.
        assert (head.n_samples, head.n_bytes) == (4, 4 * (512 + 3072 + 512 + 512))
        assert head.shard_bytes == (tmp_path / "a.tar").stat().st_size

    def test_the_head_is_what_is_then_read_and_nothing_behind_it(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(tar(10))
        (shard,) = find_source(str(tmp_path)).shards
        batches = list(read_batches(read_head(shard, 4).shard, 3))
        keys = [key for batch in batches for key in batch.column("samples")[0].values.field("key").to_pylist()]
        assert keys == ["0", "1", "2", "3"]
        assert batches[-1].column("n_samples").to_pylist() == [4]

    @pytest.mark.parametrize(
        ("codec", "compress"),
        [("gz", gzip.compress), ("zst", lambda data: pa.Codec("zstd").compress(data, asbytes=True))],
    )
    def test_of_a_compressed_tar_the_bytes_are_those_of_its_file(
        self, tmp_path: Path, codec: str, compress: Callable[[bytes], bytes]
    ) -> None:
        noise = np.random.default_rng(0)
        members = [(f"{number}.jpg", noise.bytes(60_000)) for number in range(100)]
        (tmp_path / f"a.tar.{codec}").write_bytes(compress(tar_bytes(members)))
        (shard,) = find_source(str(tmp_path)).shards
        head = read_head(shard, 50)
        assert head.n_samples == 50
        assert head.n_bytes / head.shard_bytes == pytest.approx(0.5, abs=0.05)

    def test_a_parquet_file_says_how_many_rows_it_has(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"bytes": [IMAGES[0]] * 20}), tmp_path / "a.parquet")
        (shard,) = find_source(str(tmp_path)).shards
        head = read_head(shard, 5)
        assert (head.n_samples, head.shard.wanted) == (5, (0, 1, 2, 3, 4))
        assert head.n_bytes == pytest.approx(head.shard_bytes / 4, abs=1)

    @pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
    def test_a_storage_that_fails_is_not_taken_for_a_damaged_shard(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        (tmp_path / name).write_bytes(tar(3))
        (shard,) = find_source(str(tmp_path)).shards

        class FailingFile(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(LocalFileSystem, "open", lambda *_, **__: FailingFile(tar(3)))
        with pytest.raises(StorageError, match=r"cannot read shard a .*Input/output error"):
            read_head(shard, 2)

    @pytest.mark.parametrize("content", [b"", b"no archive" * 100])
    def test_what_is_no_archive_is_one_row(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.tar").write_bytes(content)
        (shard,) = find_source(str(tmp_path)).shards
        assert read_head(shard, 5).n_samples == 1
        assert len(list(read_batches(read_head(shard, 5).shard, 8))) == 1
