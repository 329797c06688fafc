"""Commands sent to a Ray cluster that this module starts; what they read and write is on a local S3 server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from jobs.verbs.submit import PACKAGES
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import sample_members, tar_bytes
from tests.fixtures.stored.queries import rows

# A head of its own, and jobs that it starts.
pytestmark = pytest.mark.long
TOKEN, SECRET = "0123456789abcdef" * 2, "a-secret-of-this-test"
# Of the head.
N_CPUS = 3
N_SHARDS, N_SAMPLES = 3, 8
TAGSTREAM = [sys.executable, "-m", "jobs.cli"]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a head that asks for a token and knows of no S3; an older copy of the code is installed there."""
    older = tmp_path_factory.mktemp("installed")
    for name in PACKAGES:
        (older / name).mkdir()
        (older / name / "__init__.py").write_text("raise ImportError('this is the older copy')\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_AUTH"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PATH": path, "PYTHONPATH": str(older)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fixtures.servers.head"],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(180)


@pytest.fixture(scope="module")
def environment(s3: str) -> dict[str, str]:
    """Of a user who may use the cluster and S3."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*TAGSTREAM, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def send(environment: dict[str, str], head: str, name: str) -> tuple[str, int]:
    """Sends one of the files that are made for this module; returns the job's id and the bytes sent."""
    command = [
        sys.executable,
        "-m",
        "tests.fixtures.processes.send_file",
        head,
        str(ROOT / "tests" / "fixtures" / "processes" / name),
    ]
    sent = subprocess.run(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=180, check=True
    )
    job_id, n_bytes = sent.stdout.split()
    return job_id, int(n_bytes)


@pytest.fixture(scope="module")
def labelled(
    s3: str, head: str, environment: dict[str, str], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """A labelling job on the cluster, with a bad image in every shard and a file of settings."""
    folder = tmp_path_factory.mktemp("submit")
    for number in range(N_SHARDS):
        members = [
            member
            for seed in range(N_SAMPLES - 1)
            for member in sample_members(f"{seed:04}", N_SAMPLES * number + seed)
        ]
        (folder / f"{number:05}.tar").write_bytes(tar_bytes([*members, ("bad.jpg", b"no image")]))
    fsspec.filesystem("s3").put(f"{folder}/*.tar", f"{s3}/submitted/")
    (folder / "label.toml").write_text("top_k = 3\n")
    verb = ["label", f"{s3}/submitted", "--store", f"{s3}/submit-store", "--model", str(tiny_model)]
    options = ["--config", str(folder / "label.toml"), "--max-reject-rate", "0.1"]
    return run(environment, "submit", "--address", head, *verb, *options)


class TestLabelling:
    """The same command, on a cluster."""

    def test_its_rows_are_in_the_store(self, labelled: subprocess.CompletedProcess[str], s3: str) -> None:
        query = "SELECT count(*), count(*) FILTER (status = 'labelled'), max(n_labels) FROM images"
        n_rejected = N_SHARDS
        expected = (N_SHARDS * N_SAMPLES, N_SHARDS * N_SAMPLES - n_rejected)
        assert rows(f"{s3}/submit-store", query)[0][:2] == expected, labelled.stderr + labelled.stdout

    def test_a_file_that_it_names_goes_along(self, labelled: subprocess.CompletedProcess[str], s3: str) -> None:
        assert rows(f"{s3}/submit-store", "SELECT max(rank) FROM labels") == [(3,)]

    def test_its_exit_code_is_that_of_the_job(self, labelled: subprocess.CompletedProcess[str]) -> None:
        assert labelled.returncode == 3
        assert "12.5% of the images were rejected, more than the 10.0% allowed." in labelled.stdout

    def test_its_log_is_shown_without_rays(self, labelled: subprocess.CompletedProcess[str]) -> None:
        # A job's notes are in its log, too.
        note, first, *_, last = labelled.stdout.splitlines()
        starts = ("Note: 21 of 21 images are 5:4 or longer", "Labelled ", "12.5% of the images")
        shown = zip((note, first, last), starts, strict=True)
        assert all(line.startswith(start) for line, start in shown), labelled.stdout
        assert "Sent " in labelled.stderr.splitlines()[0]

    def test_the_list_of_jobs_shows_it_and_no_secret(
        self, labelled: subprocess.CompletedProcess[str], head: str, environment: dict[str, str]
    ) -> None:
        (job,) = [
            job
            for job in json.loads(run(environment, "jobs", "--address", head, "--format", "json").stdout)
            if job["verb"] == "label"
        ]
        shown = run(environment, "jobs", "--address", head, job["id"])
        assert (job["status"], "12.5% of the images were rejected" in job["message"]) == ("failed", True)
        assert "status   failed, exit code 3" in shown.stdout
        assert "--config inputs/0/label.toml" in shown.stdout
        assert SECRET not in labelled.stdout + labelled.stderr + shown.stdout + shown.stderr + json.dumps(job)


def test_all_processes_of_a_job_run_the_code_that_was_sent_though_an_older_copy_is_installed(
    head: str, environment: dict[str, str]
) -> None:
    job_id, n_bytes = send(environment, head, "probe.py")
    probed = run(environment, "jobs", job_id, "--address", head, "--follow")

    assert probed.returncode == 0, probed.stdout
    told = json.loads(probed.stdout.splitlines()[-1])
    origins = {origin for process in ("driver", "task", "actor") for origin in told[process]}
    assert len(origins) == len(PACKAGES)
    assert all("/working_dir_files/_ray_pkg_" in origin for origin in origins), origins
    assert told["n_cpus"] == N_CPUS
    assert n_bytes < 20e6


@pytest.fixture(scope="module")
def job_id(head: str, environment: dict[str, str]) -> str:
    """A job that works for ever."""
    return send(environment, head, "slow_to_stop.py")[0]


class TestEnds:
    """How following ends, and jobs."""

    def test_ctrl_c_while_following_leaves_the_job_running(
        self, head: str, environment: dict[str, str], job_id: str
    ) -> None:
        command = [*TAGSTREAM, "jobs", job_id, "--address", head, "--follow"]
        follower = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert follower.stdout is not None
        assert follower.stdout.readline() == "working\n"
        follower.send_signal(signal.SIGINT)
        _, errors = follower.communicate(timeout=180)

        assert follower.returncode == 130
        assert "the job goes on" in errors
        assert "status   running" in run(environment, "jobs", job_id, "--address", head).stdout

    def test_a_job_that_is_stopped_has_time_to_finish_what_it_does(
        self, head: str, environment: dict[str, str], job_id: str
    ) -> None:
        stopped = run(environment, "jobs", job_id, "--address", head, "--stop", "--follow")

        assert stopped.returncode == 143, stopped.stderr
        assert stopped.stdout.splitlines()[-2:] == ["stopping", "all is committed"]
        assert f"Job {job_id}: stopped, exit code 143." in stopped.stderr


class TestLogin:
    """Clusters that ask for a token."""

    @pytest.mark.parametrize(
        ("changed", "sentence"),
        [
            ({"RAY_AUTH_MODE": "disabled"}, "asks for a token; set RAY_AUTH_MODE=token"),
            ({"RAY_AUTH_TOKEN": "another"}, "does not accept this token; set RAY_AUTH_MODE=token"),
        ],
        ids=["none", "wrong"],
    )
    def test_without_the_right_token_one_sentence_says_what_to_set(
        self, head: str, environment: dict[str, str], changed: dict[str, str], sentence: str
    ) -> None:
        refused = run({**environment, **changed}, "jobs", "--address", head)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"Error: the Ray cluster at {head} {sentence}")
        assert refused.stderr.count("\n") == 1

    def test_a_token_that_is_there_is_used_though_no_mode_is_set(
        self, head: str, environment: dict[str, str], tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text(TOKEN)
        of_file = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
        listed = run({**of_file, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}, "jobs", "--address", head)
        assert listed.returncode == 0, listed.stderr
