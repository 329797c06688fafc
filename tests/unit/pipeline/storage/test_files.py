"""Files on local disks and object stores: opened, written whole, moved, and what their errors become."""

from __future__ import annotations

import errno
import http.client
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import botocore.exceptions
import fsspec
import huggingface_hub
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import SourceError, StorageError, TagstreamError
from pipeline.sources import batches, listing
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from pipeline.storage.files import (
    Filesystem,
    WatchedStream,
    full_url,
    is_local,
    modified_s,
    move_whole,
    open_filesystem,
    open_whole,
    read_if_exists,
    storage_errors,
    write_whole,
)
from tests.fixtures.corpus import tar_bytes
from tests.fixtures.files import files_below


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Filesystem, str]:
    """A folder on the local disk and one on S3."""
    url = str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    filesystem, path = open_filesystem(f"{url}/folder")
    filesystem.makedirs(path, exist_ok=True)
    return filesystem, path


def names(folder: tuple[Filesystem, str]) -> list[str]:
    filesystem, path = folder
    return sorted(Path(found).name for found in filesystem.find(path))


class TestOpening:
    """Filesystems and paths of what users write."""

    def test_a_path_has_one_spelling(self, tmp_path: Path) -> None:
        filesystem, path = open_filesystem(f"{tmp_path}/a/../b//c/")
        assert (is_local(filesystem), path) == (True, f"{tmp_path}/b/c")

    def test_an_address_of_an_object_store_has_no_slash_at_its_end(self, s3: str) -> None:
        filesystem, path = open_filesystem(f"{s3}/a/b/")
        assert (is_local(filesystem), path) == (False, "corpus/a/b")

    def test_the_root_of_a_disk_stays(self) -> None:
        assert open_filesystem("/")[1] == "/"

    def test_an_unknown_protocol_is_one_sentence(self) -> None:
        with pytest.raises(TagstreamError, match=r"^cannot open nowhere://x: Protocol not known: nowhere"):
            open_filesystem("nowhere://x")

    def test_what_is_written_elsewhere_is_seen_at_once(self, folder: tuple[Filesystem, str]) -> None:
        filesystem, path = folder
        filesystem.pipe_file(f"{path}/0", b"x")
        assert [Path(found).name for found in filesystem.ls(path, detail=False)] == ["0"]
        # Another job has a filesystem of its own.
        type(filesystem)(skip_instance_cache=True).pipe_file(f"{path}/1", b"x")
        assert sorted(Path(found).name for found in filesystem.ls(path, detail=False)) == ["0", "1"]

    def test_a_path_becomes_an_address_that_opens_the_same(self, folder: tuple[Filesystem, str]) -> None:
        filesystem, path = folder
        filesystem.pipe_file(f"{path}/größe 1.txt", b"x")
        again, place = open_filesystem(full_url(filesystem, f"{path}/größe 1.txt"))
        assert again.cat_file(place) == b"x"


class TestWriting:
    """Files are seen whole or not at all."""

    def test_what_was_written_is_read(self, folder: tuple[Filesystem, str]) -> None:
        filesystem, path = folder
        assert write_whole(filesystem, f"{path}/a/b/0", b"first")
        assert write_whole(filesystem, f"{path}/a/b/0", b"second")
        assert read_if_exists(filesystem, f"{path}/a/b/0") == b"second"
        assert names(folder) == ["0"]

    def test_a_file_that_is_there_stays_where_that_is_asked_for(self, folder: tuple[Filesystem, str]) -> None:
        filesystem, path = folder
        assert write_whole(filesystem, f"{path}/0", b"first", if_absent=True)
        assert not write_whole(filesystem, f"{path}/0", b"second", if_absent=True)
        assert read_if_exists(filesystem, f"{path}/0") == b"first"
        assert names(folder) == ["0"]

    def test_of_a_file_that_is_not_there_nothing_is_read(self, folder: tuple[Filesystem, str]) -> None:
        filesystem, path = folder
        assert read_if_exists(filesystem, f"{path}/0") is None

    @pytest.mark.parametrize("is_there", [False, True])
    def test_a_file_appears_when_all_of_it_is_written(self, folder: tuple[Filesystem, str], is_there: bool) -> None:
        filesystem, path = folder
        if is_there:
            write_whole(filesystem, f"{path}/0", b"former")
        with open_whole(filesystem, f"{path}/0") as stream:
            stream.write(b"a" * 100_000)
            stream.flush()
            assert read_if_exists(filesystem, f"{path}/0") == (b"former" if is_there else None)
            stream.write(b"b")
        assert read_if_exists(filesystem, f"{path}/0") == b"a" * 100_000 + b"b"
        assert names(folder) == ["0"]

    def test_a_file_whose_writing_fails_leaves_nothing(
        self, folder: tuple[Filesystem, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        filesystem, path = folder
        write_whole(filesystem, f"{path}/0", b"former")
        before = files_below(tmp_path)
        with pytest.raises(TypeError), open_whole(filesystem, f"{path}/0") as stream:
            stream.writelines([b"half", None])
        assert read_if_exists(filesystem, f"{path}/0") == b"former"
        assert files_below(tmp_path) == before

    def test_a_name_may_be_as_long_as_file_systems_allow(self, folder: tuple[Filesystem, str]) -> None:
        filesystem, path = folder
        assert write_whole(filesystem, f"{path}/{'x' * 255}", b"1")
        with open_whole(filesystem, f"{path}/{'y' * 255}") as stream:
            stream.write(b"2")
        assert names(folder) == ["x" * 255, "y" * 255]

    def test_a_local_file_is_moved_into_a_folder_that_is_made_for_it(
        self, folder: tuple[Filesystem, str], tmp_path: Path
    ) -> None:
        filesystem, path = folder
        (tmp_path / "made").write_bytes(b"x")
        move_whole(filesystem, tmp_path / "made", f"{path}/new/0")
        assert read_if_exists(filesystem, f"{path}/new/0") == b"x"
        assert not (is_local(filesystem) and (tmp_path / "made").exists())


class FailingStream(io.BytesIO):
    """Gives its first bytes, then fails as a storage does."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 4:
            raise OSError(errno.EIO, "the storage is gone")
        return super().read(min(size or 0, 4))


class TestWatchedStream:
    """Whether what a decoder complains about is the storage or the file."""

    def test_a_file_that_is_read_to_its_end_has_no_failure(self, folder: tuple[Filesystem, str]) -> None:
        filesystem, path = folder
        filesystem.pipe_file(f"{path}/0", bytes(range(256)) * 100)
        with filesystem.open(f"{path}/0", "rb") as opened, WatchedStream(opened) as stream:
            assert stream.read() == bytes(range(256)) * 100
            assert stream.read(1) == b""
            stream.seek(-2, io.SEEK_END)
            assert stream.read(10) == b"\xfe\xff"
            assert stream.failure is None

    def test_the_failure_of_a_storage_is_remembered_after_others_turned_it_into_an_error_of_theirs(self) -> None:
        stream = WatchedStream(FailingStream(b"12345678"))
        assert stream.read(4) == b"1234"
        with pytest.raises(OSError, match="the storage is gone") as caught:
            stream.read(4)
        assert stream.failure is caught.value


class TestErrors:
    """What goes wrong with a storage, as a sentence."""

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (PermissionError(errno.EACCES, "Permission denied"), r"^cannot read x: permission denied \(.*\)$"),
            (OSError(errno.ENOSPC, "No space\nleft"), r"^cannot read x: \[Errno 28\] No space left$"),
            (FileNotFoundError("x"), r"^cannot read x: x$"),
            (
                botocore.exceptions.NoCredentialsError(),
                r"^cannot read x: Unable to locate credentials; .*ANON=true for a",
            ),
            (http.client.BadStatusLine("x"), r"^cannot read x: x$"),
        ],
    )
    def test_an_error_of_the_storage_says_what_could_not_be_done(self, error: Exception, message: str) -> None:
        with pytest.raises(StorageError, match=message) as caught, storage_errors("read x"):
            raise error
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize("error", [SourceError("no such shard"), ValueError("a bug"), KeyError("a bug")])
    def test_any_other_error_stays_as_it_is(self, error: Exception) -> None:
        with pytest.raises(type(error)) as caught, storage_errors("read x"):
            raise error
        assert caught.value is error

    def test_an_interrupted_job_is_no_fault_of_the_storage(self) -> None:
        with pytest.raises(KeyboardInterrupt), storage_errors("read x"):
            raise KeyboardInterrupt


class TestTimes:
    """When a listed file was written."""

    @pytest.mark.parametrize(
        ("info", "expected"),
        [
            ({"mtime": 1.5}, 1.5),
            ({"LastModified": datetime(1970, 1, 2, tzinfo=UTC)}, 86_400.0),
            ({"mtime": None}, None),
            ({"name": "x"}, None),
        ],
    )
    def test_it_is_told_in_seconds_whatever_the_listing_calls_it(self, info: object, expected: float | None) -> None:
        assert modified_s(info) == expected

    def test_a_file_that_was_just_written_is_new(self, folder: tuple[Filesystem, str]) -> None:
        filesystem, path = folder
        filesystem.pipe_file(f"{path}/0", b"x")
        (info,) = [info for info in filesystem.ls(path, detail=True) if info["name"].endswith("/0")]
        assert abs(modified_s(info) - datetime.now(UTC).timestamp()) < 60


class FlakyFileSystem(MemoryFileSystem):
    """A storage that nobody has heard of, and whose library raises errors of its own."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures: ClassVar[list[Exception]] = []
    """What the next requests fail with."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        if options.get("mode", arguments[0] if arguments else "rb") == "rb":
            self._fail()
        return super()._open(path, *arguments, **options)

    def find(self, path: str, **options: Any) -> Any:
        self._fail()
        return super().find(path, **options)


class TestOtherStorages:
    """Storages of which this package knows nothing but what fsspec has in common for all."""

    @pytest.fixture(autouse=True)
    def flaky(self, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
        fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
        for module in (batches, listing):
            monkeypatch.setattr(module, "RETRY_WAITS_S", (0.0, 0.0))
        FlakyFileSystem.failures.clear()
        FlakyFileSystem().pipe_file("/shards/0.tar", tar_bytes([("a.jpg", b"A")]))
        return FlakyFileSystem.failures

    @pytest.mark.parametrize("error", [http.client.BadStatusLine("reset"), OSError(errno.ECONNRESET, "reset")])
    def test_they_are_asked_again_where_they_fail_for_a_moment(self, flaky: list[Exception], error: Exception) -> None:
        flaky += [error] * 2
        (shard,) = find_source("flaky://shards").shards
        assert flaky == []
        flaky += [error] * 2
        (batch,) = read_batches(shard, 8)
        assert (flaky, batch.column("n_samples").to_pylist()) == ([], [1])

    def test_they_are_given_up_in_one_sentence(self, flaky: list[Exception]) -> None:
        (shard,) = find_source("flaky://shards").shards
        flaky += [http.client.BadStatusLine("reset")] * 9
        with pytest.raises(StorageError, match=r"^cannot read the source flaky://shards: reset$"):
            find_source("flaky://shards")
        with pytest.raises(StorageError, match=r"^cannot read shard 0 \(flaky:///shards/0.tar\): reset$"):
            list(read_batches(shard, 8))
        assert len(flaky) == 3

    def test_a_refusal_is_final(self, flaky: list[Exception]) -> None:
        flaky += [PermissionError("no")] * 2
        with pytest.raises(StorageError, match="permission denied"):
            find_source("flaky://shards")
        assert len(flaky) == 1

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("dbfs://x/y", "cannot open dbfs://x/y: this storage needs settings that a URL cannot give"),
            ("sftp://host/x", "cannot open sftp://host/x: .*paramiko"),
            ("nopro://x", "cannot open nopro://x: Protocol not known"),
        ],
    )
    def test_one_that_cannot_be_opened_says_why(self, url: str, message: str) -> None:
        with pytest.raises(TagstreamError, match=message):
            find_source(url)

    def test_a_hub_out_of_reach_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.HfFileSystem, "info", raise_connect_error)
        monkeypatch.setattr(huggingface_hub.HfFileSystem, "resolve_path", raise_connect_error)
        with pytest.raises(StorageError, match=r"^cannot (read the source|open) hf://datasets/a/b: .*not known$"):
            find_source("hf://datasets/a/b")


def raise_connect_error(*_: Any, **__: Any) -> Any:
    raise ConnectError("Name or service not known")


class ConnectError(Exception):
    """As httpx has it: no OSError."""


ConnectError.__module__ = "httpx"
