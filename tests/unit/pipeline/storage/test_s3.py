"""S3 that fails: what is asked again, how often, and what is said when it is given up."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from botocore.exceptions import ClientError

from pipeline.errors import StorageError
from pipeline.storage.files import Filesystem, open_filesystem, storage_errors, write_whole
from pipeline.storage.s3 import _explained
from tests.fixtures.servers.faulty_s3 import Fault, FaultyS3

CONTENT = random.Random(5).randbytes(300_000)
ANSWERS = [Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.TOO_MANY_REQUESTS]
PASSING = [fault for fault in Fault if fault is not Fault.FORBIDDEN]


@pytest.fixture
def folder(
    request: pytest.FixtureRequest, faulty_s3: FaultyS3, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Filesystem, str]]:
    """A filesystem, and the path of a folder on it that holds the file `a`."""
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if given.get("fault") in (Fault.STALL, Fault.STALL_BODY):
        # These answers never come.
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 1}})
    filesystem, root = open_filesystem(f"{s3}/{tmp_path.name}")
    filesystem.pipe_file(f"{root}/a", CONTENT)
    faulty_s3.calm()
    yield filesystem, root
    faulty_s3.calm()


def read_in_pieces(filesystem: Filesystem, path: str) -> bytes:
    with filesystem.open(path, "rb", block_size=1 << 16, cache_type="readahead") as file:
        return b"".join(iter(lambda: file.read(50_000), b""))


def download(filesystem: Filesystem, path: str, to: Path) -> bytes:
    filesystem.get_file(path, str(to))
    return to.read_bytes()


class TestPassingFaults:
    """What fails once and would work the next time."""

    @pytest.mark.parametrize("fault", PASSING)
    def test_a_read_gives_the_whole_file(
        self, fault: Fault, folder: tuple[Filesystem, str], faulty_s3: FaultyS3
    ) -> None:
        filesystem, root = folder
        faulty_s3.inject(fault, method="GET", part="/a", skip=2)
        assert read_in_pieces(filesystem, f"{root}/a") == CONTENT
        faulty_s3.inject(fault, method="GET", part="/a")
        assert filesystem.cat_file(f"{root}/a") == CONTENT
        assert faulty_s3.injected == {fault: 2}

    @pytest.mark.parametrize("fault", [Fault.CUT_BODY, Fault.STALL_BODY])
    def test_a_download_gives_the_whole_file(
        self, fault: Fault, folder: tuple[Filesystem, str], faulty_s3: FaultyS3, tmp_path: Path
    ) -> None:
        filesystem, root = folder
        faulty_s3.inject(fault, method="GET", part="/a", times=2)
        assert download(filesystem, f"{root}/a", tmp_path / "a") == CONTENT
        assert faulty_s3.injected == {fault: 2}

    @pytest.mark.parametrize("fault", PASSING)
    def test_a_listing_is_whole(self, fault: Fault, folder: tuple[Filesystem, str], faulty_s3: FaultyS3) -> None:
        filesystem, root = folder
        faulty_s3.inject(fault, method="GET", part="list-type")
        assert filesystem.ls(root, detail=False) == [f"{root}/a"]
        assert faulty_s3.injected == {fault: 1}

    @pytest.mark.parametrize("fault", PASSING)
    @pytest.mark.parametrize("if_absent", [False, True])
    def test_a_write_is_done_once_and_says_so(
        self, fault: Fault, if_absent: bool, folder: tuple[Filesystem, str], faulty_s3: FaultyS3
    ) -> None:
        filesystem, root = folder
        faulty_s3.inject(fault, method="PUT")
        assert write_whole(filesystem, f"{root}/b", CONTENT, if_absent=if_absent)
        assert filesystem.cat_file(f"{root}/b") == CONTENT
        assert faulty_s3.injected == {fault: 1}

    def test_a_write_whose_answer_is_lost_does_not_take_the_file_of_another_for_its_own(
        self, folder: tuple[Filesystem, str], faulty_s3: FaultyS3
    ) -> None:
        filesystem, root = folder
        faulty_s3.inject(Fault.CUT_AFTER, method="PUT")
        assert not write_whole(filesystem, f"{root}/a", b"mine", if_absent=True)
        assert filesystem.cat_file(f"{root}/a") == CONTENT


class TestLastingFaults:
    """What fails each time."""

    @pytest.mark.parametrize("fault", ANSWERS)
    def test_a_request_is_sent_as_often_as_the_setting_says(
        self, fault: Fault, folder: tuple[Filesystem, str], faulty_s3: FaultyS3
    ) -> None:
        filesystem, root = folder
        code = fault.value.split()[1]
        faulty_s3.inject(fault, method="PUT", times=None)
        with pytest.raises(OSError, match=rf"{code} as planned at PutObject \(given up after 5 attempts\)"):
            filesystem.pipe_file(f"{root}/b", CONTENT)
        assert faulty_s3.injected == {fault: 5}

    @pytest.mark.parametrize("fault", [Fault.CUT_BODY, Fault.STALL_BODY])
    def test_a_read_that_breaks_off_is_given_up_after_as_many_attempts(
        self, fault: Fault, folder: tuple[Filesystem, str], faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filesystem, root = _with_attempts(monkeypatch, folder[1], 2)
        faulty_s3.inject(fault, method="GET", part="/a", times=None)
        sentence = r"^cannot read it: the answer broke off: .+ \(given up after 2 attempts\)$"
        with pytest.raises(StorageError, match=sentence), storage_errors("read it"):
            read_in_pieces(filesystem, f"{root}/a")
        assert faulty_s3.injected == {fault: 2}

    @pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.STALL])
    def test_a_request_without_an_answer_is_given_up(
        self, fault: Fault, folder: tuple[Filesystem, str], faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filesystem, root = _with_attempts(monkeypatch, folder[1], 2)
        faulty_s3.inject(fault, method="GET", part="/a", times=None)
        with pytest.raises(OSError, match=r"given up after 2 attempts"):
            filesystem.cat_file(f"{root}/a")
        # aiohttp sends a request again by itself where the connection had served another before.
        assert faulty_s3.injected[fault] <= 4

    def test_a_refusal_is_not_asked_again(self, folder: tuple[Filesystem, str], faulty_s3: FaultyS3) -> None:
        filesystem, root = folder
        faulty_s3.inject(Fault.FORBIDDEN, method="PUT", times=None)
        with pytest.raises(StorageError, match="cannot write it: permission denied"), storage_errors("write it"):
            filesystem.pipe_file(f"{root}/b", CONTENT)
        assert faulty_s3.injected == {Fault.FORBIDDEN: 1}


class TestSettings:
    """Retries as the user has set them."""

    def test_by_default_eight_attempts_are_made_in_botocores_standard_mode(
        self, monkeypatch: pytest.MonkeyPatch, faulty_s3: FaultyS3
    ) -> None:
        monkeypatch.delenv("AWS_MAX_ATTEMPTS")
        assert _settings() == {"total_max_attempts": 8, "mode": "standard"}

    def test_the_environment_goes_before(self, monkeypatch: pytest.MonkeyPatch, faulty_s3: FaultyS3) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
        assert _settings() == {"total_max_attempts": 3, "mode": "adaptive"}

    def test_the_configuration_file_goes_before(
        self, monkeypatch: pytest.MonkeyPatch, faulty_s3: FaultyS3, tmp_path: Path
    ) -> None:
        (tmp_path / "config").write_text("[default]\nmax_attempts = 2\nretry_mode = legacy\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.delenv("AWS_MAX_ATTEMPTS")
        assert _settings() == {"total_max_attempts": 2, "mode": "legacy"}

    def test_waits_grow_and_no_two_clients_wait_alike(self, faulty_s3: FaultyS3) -> None:
        # What botocore does for the errors that it knows, done for those that it does not.
        filesystem, _ = open_filesystem("s3://corpus/x")
        throttled = (type("Answer", (), {"status_code": 429})(), {})
        wait: Callable[[int], float | None] = partial(filesystem._wait_s, throttled)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("pipeline.storage.s3._MAX_WAIT_S", 20.0)
            longest = [max(wait(attempts) or 0 for _ in range(300)) for attempts in (1, 2, 3, 4)]
        assert [round(seconds) for seconds in longest] == [1, 2, 4, 8]
        assert len({wait(1) for _ in range(10)}) == 10
        assert wait(5) is None


def test_a_file_that_exists_is_told_by_stores_that_do_not_name_the_condition() -> None:
    answer: Any = {"Error": {"Code": "PreconditionFailed", "Message": "no"}, "ResponseMetadata": {}}
    error = _explained(ClientError(answer, "PutObject"), {"Key": "a", "IfNoneMatch": "*"})
    assert isinstance(error, FileExistsError)
    other = _explained(ClientError(answer, "GetObject"), {"Key": "a"})
    assert isinstance(other, OSError)
    assert other.errno == errno.EINVAL


def _with_attempts(monkeypatch: pytest.MonkeyPatch, path: str, attempts: int) -> tuple[Filesystem, str]:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", str(attempts))
    return open_filesystem(f"s3://{path}", skip_instance_cache=True)


def _settings() -> dict[str, Any]:
    """The retries of a new client."""
    filesystem, _ = open_filesystem("s3://corpus/x", skip_instance_cache=True)
    settings: dict[str, Any] = filesystem.s3.meta.config.retries
    return settings
