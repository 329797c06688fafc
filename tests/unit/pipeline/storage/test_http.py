"""Sources on web servers: with ranges and without, that are busy, refuse, or break off."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import SourceError, StorageError
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from pipeline.sources.shard_reader import read_head
from pipeline.storage import http
from pipeline.storage.files import open_filesystem
from tests.fixtures.corpus import jpeg, tar_bytes, write_parquet
from tests.fixtures.servers.moody_web import MoodyWeb, moody_web
from tests.unit.pipeline.sources.test_zip_reader import zip_bytes

IMAGES = [(f"{number}.jpg", random.Random(number).randbytes(700_000)) for number in range(5)]


@pytest.fixture(scope="module")
def web() -> Iterator[MoodyWeb]:
    with moody_web() as web:
        web.files = {
            "0.tar": tar_bytes(IMAGES),
            "0.zip": zip_bytes(IMAGES),
            "list": f"{web.url}/ranges/0.tar\n".encode(),
        }
        yield web


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_ATTEMPTS", 4)
    monkeypatch.setattr(http, "_MAX_WAIT_S", 0.01)


def shard_of(url: str) -> Shard:
    (shard,) = find_source(url).shards
    return shard


def images_of(shard: Shard) -> list[tuple[str, bytes]]:
    samples = [sample for batch in read_batches(shard, 2) for sample in batch.column("samples")[0].as_py()]
    assert not any(sample["error"] for sample in samples), samples
    return [(f"{sample['key']}.jpg", sample["data"]) for sample in samples]


@pytest.mark.parametrize("mood", ["ranges", "plain", "busy", "cut"])
@pytest.mark.parametrize("name", ["0.tar", "0.zip"])
def test_a_shard_is_read_whole(web: MoodyWeb, mood: str, name: str) -> None:
    web.requests.clear()
    shard = shard_of(f"{web.url}/{mood}/{name}")
    assert shard.size == len(web.files[name])
    assert images_of(shard) == IMAGES


def test_a_parquet_file_of_a_server_without_ranges_is_read_from_the_local_disk(web: MoodyWeb, tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", 20, as_struct=False)
    web.files["0.parquet"] = (tmp_path / "0.parquet").read_bytes()
    web.requests.clear()
    (batch,) = read_batches(Shard("0", f"{web.url}/plain/0.parquet", "parquet"), 50)
    assert batch.column("n_samples").to_pylist() == [20]
    # One request for its version, one to open it, one for all of it.
    assert web.requests == {"/plain/0.parquet": 3}


@pytest.mark.parametrize("mood", ["ranges", "plain"])
def test_the_beginning_of_a_tar_is_measured(web: MoodyWeb, mood: str) -> None:
    head = read_head(shard_of(f"{web.url}/{mood}/0.tar"), 2)
    assert (head.n_samples, head.n_bytes) == (2, 2 * (512 + 700_416))


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("forbidden", r"permission denied \(403 Forbidden\)"),
        ("gone", "404 Not Found"),
        ("down", r"503 Service Unavailable \(given up after 4 attempts\)"),
    ],
)
def test_a_refusal_is_told_with_its_code(web: MoodyWeb, mood: str, reason: str) -> None:
    url = f"{web.url}/{mood}/1.tar"
    with pytest.raises(StorageError, match=rf"^cannot read shard x \({url}\): {reason}$"):
        list(read_batches(Shard("x", url, "tar"), 2))
    missing = f"^{url} does not exist"
    with pytest.raises((StorageError, SourceError), match=missing if mood == "gone" else reason):
        find_source(url)


def test_a_server_that_breaks_off_each_time_is_a_failure_of_the_storage(
    web: MoodyWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "n_busy", 1000)
    with pytest.raises(StorageError, match=r"the answer broke off: .* \(given up after 4 attempts\)"):
        images_of(Shard("0", f"{web.url}/cut/0.tar", "tar"))


def test_nothing_listens_there(web: MoodyWeb) -> None:
    with pytest.raises(
        StorageError, match=r"^cannot read the source http://127.0.0.1:1/0.tar: .*given up after 4 attempts"
    ):
        find_source("http://127.0.0.1:1/0.tar")


def test_a_list_may_lie_on_a_server(web: MoodyWeb) -> None:
    web.requests.clear()
    (shard,) = find_source(f"@{web.url}/busy/list").shards
    assert images_of(shard) == IMAGES


def test_links_of_images_are_refused_with_the_name_of_what_downloads_them(web: MoodyWeb, tmp_path: Path) -> None:
    web.files["a.jpg"] = jpeg(1)
    (tmp_path / "list").write_text(f"{web.url}/plain/a.jpg\nhttps://host/b.png?width=100\n")
    for given, n_images in ((f"{web.url}/plain/a.jpg", 1), (f"@{tmp_path}/list", 2)):
        with pytest.raises(
            SourceError, match=rf"names {n_images} images on web servers, .* download them with img2dataset"
        ):
            find_source(given)


def test_a_file_that_arrives_in_one_piece_can_be_gone_about_in(web: MoodyWeb) -> None:
    filesystem, path = open_filesystem(f"{web.url}/plain/0.tar")
    with filesystem.open(path, cache_type="readahead") as stream:
        content = web.files["0.tar"]
        for offset in (0, 2_000_000, 100):
            stream.seek(offset)
            assert stream.read(50) == content[offset : offset + 50]
        assert stream.tell() == 150
        with pytest.raises(io.UnsupportedOperation):
            stream.seek(0, 2)
