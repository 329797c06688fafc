"""Commands as jobs of a Ray cluster, through Ray's Jobs API: sent, followed, listed, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import ClientError
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

from pipeline.cluster.environment import forwarded_environment
from pipeline.cluster.ray_session import silence
from pipeline.errors import ClusterError
from pipeline.text import conceal, one_line

EXIT_STOPPED = 143
# After SIGTERM a job commits what is whole; Ray would kill it after three seconds.
STOP_WAIT_S = 300
_EXIT_FAILED = 1
_MAX_UPLOAD_BYTES = 500 << 20
# A head that has just started answers before it can take a job.
_NO_AGENT, _NO_AGENT_PATIENCE_S = "No available agent", 60.0
_AWAY_PATIENCE_S, _SILENCE_PATIENCE_S = 120.0, 120.0
_PAUSE_S = 1.0
_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
_STATUS = re.compile(r"^Request failed with status code \d+: ")
_OUR_COMMAND = re.compile(r"(?:\btagstream|\bjobs\.cli)\s+(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Upload:
    """What a job gets to work with."""

    packages: Sequence[Path]
    """Folders of the Python packages that the job imports."""
    files: Mapping[str, Path]
    """Other files, by their path in the job's working directory."""

    def copy_to(self, folder: Path) -> int:
        """Puts all of it into a folder. Returns: its size in bytes."""
        for package in self.packages:
            shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for name, path in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job as its cluster describes it."""

    job_id: str
    command: str
    """The command line, without `tagstream` in front. Another program's command line is whole. Logins are concealed."""
    status: str
    """Ray's word: pending, running, succeeded, failed or stopped."""
    started: datetime | None
    ended: datetime | None
    message: str
    """Ray's last line about the job, empty where there is none."""
    exit_code: int | None
    """Exit code of the command; None until the job has ended."""


class JobCluster:
    """The jobs of a Ray cluster.

    Args:
        address: URL of the head's dashboard, http://HEAD:8265; default RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises ClusterError, as its methods do, where there is no cluster or it refuses access.
    """

    def __init__(self, address: str | None = None) -> None:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        for module in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.CRITICAL)
        self.address = address or os.environ.get(_ADDRESS_VARIABLE) or os.environ.get("RAY_ADDRESS") or ""
        if not self.address:
            # Ray would take any that runs on this machine, whosever it is.
            raise ClusterError("there is no address of a Ray cluster; expected --address http://HEAD:8265")
        if address:
            # Ray's client prefers its environment to the address that it is given.
            is_whole = "://" in address or address == "auto"
            os.environ[_ADDRESS_VARIABLE] = address if is_whole else f"http://{address}"
        # As Ray does where it joins a cluster: a token that is there is used, unless RAY_AUTH_MODE says otherwise.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        with self._errors(), silence():
            try:
                self._client = JobSubmissionClient()
            except ValueError as error:
                # In no form that Ray knows.
                raise ConnectionError(str(error)) from error
        self.address = self._client.get_address()

    def submit(self, name: str, command: Sequence[str], upload: Upload) -> tuple[str, int]:
        """Sends a command with what it needs. Returns: the job's id, which begins with the name, and the bytes sent."""
        job_id = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        with tempfile.TemporaryDirectory(prefix="tagstream-") as folder:
            n_bytes = upload.copy_to(Path(folder))
            if n_bytes > _MAX_UPLOAD_BYTES:
                raise ClusterError(
                    f"the job's files are {n_bytes >> 20:,} MiB; a Ray cluster takes up to {_MAX_UPLOAD_BYTES >> 20} "
                    "MiB with a job: put large ones where all nodes can read them, and name them by that path or URL"
                )
            environment = {**forwarded_environment(), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
            with self._errors():
                self._submit(job_id, command, {"working_dir": folder, "env_vars": environment})
        return job_id, n_bytes

    def _submit(self, job_id: str, command: Sequence[str], runtime_env: dict[str, object]) -> None:
        give_up = time.monotonic() + _NO_AGENT_PATIENCE_S
        while True:
            try:
                # Signals are for the command itself, not for a shell around it.
                self._client.submit_job(
                    entrypoint=f"exec {shlex.join(command)}", submission_id=job_id, runtime_env=runtime_env
                )
                return
            except RuntimeError as error:
                if _NO_AGENT not in str(error) or time.monotonic() > give_up:
                    raise
            time.sleep(_PAUSE_S)

    def jobs(self) -> list[SubmittedJob]:
        """All jobs that were submitted to the cluster, the latest first."""
        with self._errors():
            listed = [job for job in self._client.list_jobs() if job.type == JobType.SUBMISSION]
        return [_describe(job) for job in sorted(listed, key=lambda job: job.start_time or 0, reverse=True)]

    def job(self, job_id: str) -> SubmittedJob:
        """One job."""
        with self._errors():
            return _describe(self._client.get_job_info(job_id))

    def last_lines(self, job_id: str, n_lines: int) -> list[str]:
        """The end of a job's log."""
        with self._errors():
            return [conceal(line) for line in self._client.get_job_logs(job_id).splitlines()[-n_lines:]]

    def stop(self, job_id: str) -> bool:
        """Asks a job to stop, as SIGTERM does; whether it was running."""
        with self._errors():
            return bool(self._client.stop_job(job_id))

    def follow(self, job_id: str) -> Iterator[str]:
        """The lines of a job's log as they come, from the first on until it has ended.

        Raises ClusterError where the connection is lost for longer than some minutes.
        """
        log, lost_since = _Log(), None
        while True:
            try:
                for lines in log.read(self._tail(job_id)):
                    lost_since = None
                    yield from lines
                if self.job(job_id).exit_code is not None:
                    break
            except (ClientError, OSError, RuntimeError, ClusterError) as error:
                # Proxies cut what is silent: a job may say nothing for long.
                lost_since = None if self._is_at_work(job_id) else lost_since or time.monotonic()
                if lost_since is not None and time.monotonic() > lost_since + _AWAY_PATIENCE_S:
                    raise self._lost(job_id, error) from error
            time.sleep(_PAUSE_S)
        if log.rest:
            yield log.rest

    def _lost(self, job_id: str, error: Exception) -> ClusterError:
        return ClusterError(
            f"the connection to {self.address} is lost ({one_line(error)}); the job may be going on: "
            f"tagstream jobs {job_id} --address {self.address} --follow"
        )

    def _is_at_work(self, job_id: str) -> bool:
        """Whether the cluster says that a job has not ended."""
        try:
            return self.job(job_id).exit_code is None
        except ClusterError:
            return False

    def _tail(self, job_id: str) -> Iterator[str]:
        """A job's log in pieces, until the connection ends."""
        with asyncio.Runner() as runner:
            pieces = self._client.tail_job_logs(job_id)
            while (piece := runner.run(_next(pieces))) is not None:
                yield piece

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Makes one sentence of what Ray's client raises."""
        try:
            yield
        except AuthenticationError as error:
            wrong = "does not accept this token" if "failed" in str(error).split(":")[0] else "asks for a token"
            raise ClusterError(
                f"the Ray cluster at {self.address} {wrong}; set RAY_AUTH_MODE=token with the cluster's token in "
                "RAY_AUTH_TOKEN, or the path of its file in RAY_AUTH_TOKEN_PATH"
            ) from None
        except (OSError, RayError) as error:
            raise ClusterError(
                f"no Ray cluster takes jobs at {self.address}: {one_line(error).rstrip('.')}; "
                "expected --address http://HEAD:8265, the dashboard of a running head with ray[default]"
            ) from error
        except RuntimeError as error:
            why = one_line(error)
            if _STATUS.match(why):
                # The last line of a traceback on the head says what it was.
                said = [line for line in str(error).splitlines() if line.strip()]
                why = _STATUS.sub("", said[-1].strip())
            raise ClusterError(f"the Ray cluster at {self.address} refuses: {why}") from error


class _Log:
    """A job's log as lines, over several connections: each of them gives the log from its first character on."""

    def __init__(self) -> None:
        self.rest = ""
        """The beginning of a line whose end has not come yet."""
        self._n_seen = 0

    def read(self, pieces: Iterable[str]) -> Iterator[list[str]]:
        """The lines that end in each piece of a new connection; none for what a former connection gave."""
        n_read = 0
        for piece in pieces:
            new = piece[max(0, self._n_seen - n_read) :]
            n_read += len(piece)
            self._n_seen += len(new)
            *lines, self.rest = (self.rest + new).split("\n")
            yield lines


async def _next(pieces: AsyncIterator[str]) -> str | None:
    # A connection that was cut without a word stays silent for ever: a silent one is made anew. Not `asyncio.wait_for`:
    # until Python 3.12 that forgets Ctrl-C where a piece comes in the same moment.
    async with asyncio.timeout(_SILENCE_PATIENCE_S):
        return await anext(pieces, None)


def _describe(job: JobDetails) -> SubmittedJob:
    entrypoint = conceal(job.entrypoint)
    ours = _OUR_COMMAND.search(entrypoint)
    # Ray puts the end of the log behind its own sentence.
    said = [line.strip() for line in (job.message or "").splitlines() if line.strip()]
    return SubmittedJob(
        job_id=job.submission_id,
        command=ours[1] if ours else entrypoint,
        status=str(job.status).lower(),
        started=_moment(job.start_time),
        ended=_moment(job.end_time),
        message=conceal(said[-1]) if said else "",
        exit_code=_exit_code(job),
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _exit_code(job: JobDetails) -> int | None:
    if job.status == JobStatus.FAILED:
        # One that never ran has none; one that a signal killed has a negative.
        code = job.driver_exit_code
        return _EXIT_FAILED if code is None else (128 - code if code < 0 else code)
    return {JobStatus.SUCCEEDED: 0, JobStatus.STOPPED: EXIT_STOPPED}.get(job.status)
