"""Jobs of a Ray cluster, with a stand-in for Ray's client; the real one is in tests/e2e/test_submit.py."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RpcError
from ray.job_submission import JobDetails, JobStatus, JobType

from pipeline.cluster import submission
from pipeline.cluster.submission import JobCluster, Upload
from pipeline.errors import ClusterError


def details(status: JobStatus, **more: Any) -> JobDetails:
    given = {"submission_id": "job", "entrypoint": "exec python -m jobs.cli label s3://b --store s3://t", **more}
    return JobDetails(type=JobType.SUBMISSION, status=status, **given)


class Client:
    """What there is of Ray's client; each method does what the test puts into it."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self.logs: list[list[str | Exception | None]] = []
        self.details = details(JobStatus.SUCCEEDED)

    def get_address(self) -> str:
        return "http://head:8265"

    def submit_job(self, **job: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        folder = Path(job["runtime_env"]["working_dir"])
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        self.submitted.append({**job, "names": names})

    def get_job_info(self, _: str) -> JobDetails:
        # Still at work while there is more of its log to come.
        return details(JobStatus.RUNNING) if self.logs else self.details

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        for piece in self.logs.pop(0):
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                await asyncio.Event().wait()
            else:
                yield piece


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setattr(submission, "JobSubmissionClient", lambda: client)
    monkeypatch.setattr(submission, "maybe_enable_token_auth_if_token_available", lambda **_: False)
    monkeypatch.setattr(submission, "_PAUSE_S", 0.0)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    return client


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package = tmp_path / "pipeline"
    (package / "sql" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "sql/views.sql", "sql/__pycache__/x.pyc", ".secret", "__pycache__"):
        path = package / name
        path.mkdir() if name == "__pycache__" else path.write_text("text")
    return package


class TestSubmitting:
    """Sending a command."""

    def test_the_packages_and_files_travel_and_nothing_else(
        self, client: Client, package: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "label.toml").write_text("top_k = 5")
        job_id, n_bytes = JobCluster().submit(
            "label", ["python", "a b"], Upload([package], {"inputs/0/label.toml": tmp_path / "label.toml"})
        )
        (job,) = client.submitted
        assert job["names"] == ["inputs/0/label.toml", "pipeline/__init__.py", "pipeline/sql/views.sql"]
        assert (job["submission_id"], job["entrypoint"]) == (job_id, "exec python 'a b'")
        assert job_id.startswith("label-")
        assert n_bytes == 2 * len("text") + len("top_k = 5")

    def test_the_job_gets_the_storages_login_and_time_to_stop_and_installs_nothing(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "HOME_OF_MINE"):
            monkeypatch.setenv(name, "value")
        JobCluster().submit("label", ["x"], Upload([], {}))
        environment = client.submitted[0]["runtime_env"]["env_vars"]
        assert environment["AWS_ENDPOINT_URL"] == "value"
        assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == "300"
        assert {"AWS_PROFILE", "HOME_OF_MINE"}.isdisjoint(environment)
        assert set(client.submitted[0]["runtime_env"]) == {"working_dir", "env_vars"}

    def test_a_head_that_has_just_started_is_asked_again(self, client: Client) -> None:
        busy = RuntimeError("Request failed with status code 500: No available agent to submit job, please try again")
        client.failures = [busy, busy]
        JobCluster().submit("label", ["x"], Upload([], {}))
        assert len(client.submitted) == 1

    def test_it_is_not_asked_for_ever(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(submission, "_NO_AGENT_PATIENCE_S", 0.0)
        client.failures = [RuntimeError("Request failed with status code 500: No available agent")] * 9
        with pytest.raises(ClusterError, match=r"head:8265 refuses: No available agent"):
            JobCluster().submit("label", ["x"], Upload([], {}))

    def test_more_than_ray_takes_is_refused_before_it_is_sent(
        self, client: Client, package: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submission, "_MAX_UPLOAD_BYTES", 7)
        with pytest.raises(ClusterError, match="a Ray cluster takes up to 0 MiB with a job"):
            JobCluster().submit("label", ["x"], Upload([package], {}))
        assert not client.submitted

    def test_without_an_address_no_cluster_is_guessed(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with pytest.raises(ClusterError, match=r"no address of a Ray cluster; expected --address http://HEAD:8265"):
            JobCluster()


NO_CLUSTER = r"^no Ray cluster takes jobs at .*; expected --address http://HEAD:8265"


class TestAddresses:
    """Where no cluster is. Ray itself looks for it, but for what it takes long to give up."""

    @pytest.fixture(autouse=True)
    def _nothing_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            # Set first, so that it is gone again after what JobCluster sets.
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)

    @pytest.mark.parametrize(
        "address",
        ["nonsense", "127.0.0.1", "127.0.0.1:x", "http://", "http://[::1", "http://127.0.0.1:1", "http://127.0.0.1:x"],
    )
    @pytest.mark.parametrize("variable", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
    def test_an_address_without_a_cluster_is_one_sentence(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, address: str
    ) -> None:
        monkeypatch.setenv(variable, address)
        with pytest.raises(ClusterError, match=NO_CLUSTER):
            JobCluster()

    @pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "http://127.0.0.1:x"])
    def test_one_that_is_an_option_too(self, address: str) -> None:
        with pytest.raises(ClusterError, match=NO_CLUSTER):
            JobCluster(address)

    def test_a_protocol_that_ray_does_not_know_is_named(self) -> None:
        with pytest.raises(ClusterError, match=r"ftp://x refuses: Module: ftp does not exist"):
            JobCluster("ftp://x")

    @pytest.mark.parametrize("error", [RpcError("Timed out while waiting for GCS"), ValueError("no address")])
    def test_what_ray_gives_up_is_not_heard_but_in_that_sentence(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
    ) -> None:
        def give_up() -> None:
            os.write(2, b"[2026-11-22 05:54:31,615 W 30221] gcs_client.cc:210: Failed to get cluster ID\n")
            raise error

        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        monkeypatch.setattr(submission, "JobSubmissionClient", give_up)
        with pytest.raises(ClusterError, match=rf"no Ray cluster takes jobs at 127.0.0.1:1: {error}; expected"):
            JobCluster()
        assert capfd.readouterr().err == ""


class TestFollowing:
    """The lines of a job's log."""

    def test_lines_that_come_in_pieces_are_whole(self, client: Client) -> None:
        client.logs = [["one\ntw", "o\n", "three"]]
        assert list(JobCluster().follow("job")) == ["one", "two", "three"]

    def test_after_a_broken_connection_no_line_is_lost_or_shown_twice(self, client: Client) -> None:
        client.logs = [["one\nt", OSError("broken")], ["one\n", RuntimeError("again")], ["one\ntwo\nth", "ree\n"]]
        assert list(JobCluster().follow("job")) == ["one", "two", "three"]

    def test_connections_of_a_quiet_job_may_be_cut_as_long_as_the_cluster_says_that_it_is_at_work(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submission, "_AWAY_PATIENCE_S", 0.0)
        cut = RuntimeError("the connection was closed with close code 1006")
        client.logs = [["one\n"], [cut], ["one\n", cut], [cut], ["one\ntwo\n"]]
        assert list(JobCluster().follow("job")) == ["one", "two"]

    def test_a_connection_that_is_dead_without_a_word_is_made_anew(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submission, "_SILENCE_PATIENCE_S", 0.2)
        client.logs = [["one\n", None], ["one\ntwo\n"]]
        assert list(JobCluster().follow("job")) == ["one", "two"]

    @pytest.mark.parametrize("is_ready", [True, False])
    def test_ctrl_c_ends_it_also_in_the_moment_in_which_a_line_comes(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, is_ready: bool
    ) -> None:
        async def tail(_: str) -> AsyncIterator[str]:
            yield "one\n"
            os.kill(os.getpid(), signal.SIGINT)
            if not is_ready:
                await asyncio.Event().wait()
            yield "two\n"
            await asyncio.Event().wait()

        monkeypatch.setattr(client, "tail_job_logs", tail)
        monkeypatch.setattr(submission, "_SILENCE_PATIENCE_S", 5)
        lines = JobCluster().follow("job")
        assert next(lines) == "one"
        with pytest.raises(KeyboardInterrupt):
            next(lines)

    def test_a_cluster_that_stays_away_is_an_error_that_says_how_to_go_on(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: str) -> JobDetails:
            raise ConnectionError("refused")

        monkeypatch.setattr(submission, "_AWAY_PATIENCE_S", 0.0)
        monkeypatch.setattr(client, "get_job_info", refuse)
        client.logs = [["one\n", OSError("broken")] for _ in range(99)]
        lines = JobCluster().follow("job")
        assert next(lines) == "one"
        with pytest.raises(
            ClusterError, match=r"is lost \(broken\); .* tagstream jobs job --address http://head:8265 --follow"
        ):
            next(lines)

    def test_a_log_that_cannot_be_read_to_its_end_is_an_error_too(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submission, "_AWAY_PATIENCE_S", 0.0)
        monkeypatch.setattr(client, "get_job_info", lambda _: client.details)
        client.logs = [[OSError("broken")] for _ in range(99)]
        with pytest.raises(ClusterError, match=r"is lost \(broken\)"):
            list(JobCluster().follow("job"))


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.PENDING, None, None),
        (JobStatus.RUNNING, None, None),
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 3, 3),
        (JobStatus.FAILED, -9, 137),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 143),
    ],
)
def test_the_exit_code_is_that_of_the_command(
    client: Client, status: JobStatus, code: int | None, expected: int | None
) -> None:
    client.details = details(status, driver_exit_code=code)
    assert JobCluster().job("job").exit_code == expected


@pytest.mark.parametrize(
    ("entrypoint", "command"),
    [
        ("exec python -m jobs.cli label s3://b --store s3://t", "label s3://b --store s3://t"),
        ("tagstream label s3://b", "label s3://b"),
        ("/opt/bin/tagstream label https://me:word@host/x", "label https://***@host/x"),
        ("python other.py", "python other.py"),
    ],
)
def test_the_command_is_shown_without_what_runs_it_and_without_logins(
    client: Client, entrypoint: str, command: str
) -> None:
    client.details = details(JobStatus.RUNNING, entrypoint=entrypoint)
    assert JobCluster().job("job").command == command


def test_of_a_failed_jobs_message_the_last_line_is_shown(client: Client) -> None:
    message = "Job entrypoint command failed with exit code 1, last available logs:\nloading\nError: no shards\n\n"
    client.details = details(JobStatus.FAILED, message=message)
    assert JobCluster().job("job").message == "Error: no shards"
