"""A job that is killed or stopped, and the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import TAGSTREAM, RunFunction
from tests.fixtures.corpus import write_tars
from tests.integration.conftest import read_table

N_SHARDS, N_SAMPLES = 24, 16


def start(environment: dict[str, str], arguments: list[object]) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    command = [TAGSTREAM, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_commits(store: Path, process: subprocess.Popen[str], n_commits: int, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while len(list(store.glob("images/run=*/*.parquet"))) < n_commits:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no shard was committed in time"
        time.sleep(0.005)


def test_after_a_kill_of_the_whole_process_group_the_tables_equal_those_of_an_undisturbed_run(
    tagstream: RunFunction, environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    settings = ["--model", tiny_model, "--batch-size", 8, "--top-k", 5]
    process = start(environment, ["label", tmp_path / "source", "--store", tmp_path / "killed", *settings])
    wait_for_commits(tmp_path / "killed", process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    n_committed = len(list((tmp_path / "killed").glob("images/run=*/*.parquet")))
    again = tagstream("label", tmp_path / "source", "--store", tmp_path / "killed", *settings)
    undisturbed = tagstream("label", tmp_path / "source", "--store", tmp_path / "whole", *settings)

    assert 2 <= n_committed < N_SHARDS
    assert (again.returncode, undisturbed.returncode) == (0, 0), again.stderr + undisturbed.stderr
    assert f"in {N_SHARDS - n_committed} shards" in again.stdout
    for table in ("images", "labels"):
        assert read_table(tmp_path / "killed", table).equals(read_table(tmp_path / "whole", table))


def test_a_job_that_loses_rays_head_process_does_not_end_without_a_word(
    environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    command = ["label", tmp_path / "source", "--store", tmp_path / "store", "--model", tiny_model, "--batch-size", 1]
    # Ray waits for a minute else.
    process = start({**environment, "RAY_gcs_rpc_server_reconnect_timeout_s": "2"}, command)
    wait_for_commits(tmp_path / "store", process, 1)
    (head,) = [child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == "gcs_server"]
    head.kill()
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "Ray lost its head process" in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_a_scheduler_stop_a_job_cleanly_and_it_says_how_to_go_on(
    environment: dict[str, str], tiny_model: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    # Small batches: the job is far from its end when the signal comes, however busy the machine.
    sizes = ["--top-k", 5, "--batch-size", 1]
    process = start(
        environment, ["label", tmp_path / "source", "--store", tmp_path / "store", "--model", tiny_model, *sizes]
    )
    wait_for_commits(tmp_path / "store", process, 1)
    # A terminal tells the whole group, a scheduler the process that it started.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == code
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "store").rglob("*.tmp"))
