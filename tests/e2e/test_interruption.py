"""A job that is killed, stopped, or has another one beside it, and the same command again."""

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


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source and the store that one job made of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_tars(folder / "source", N_SHARDS, N_SAMPLES)
    command = job(folder, folder / "store", tiny_model)
    process = start({**os.environ, "TAGSTREAM_CACHE": str(folder / "cache")}, command)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    return folder


def job(undisturbed: Path, store: Path, tiny_model: Path) -> list[object]:
    settings = ["--model", tiny_model, "--batch-size", 8, "--top-k", 5]
    return ["label", undisturbed / "source", "--store", store, *settings]


def assert_equal(store: Path, undisturbed: Path) -> None:
    for table in ("images", "labels"):
        assert read_table(store, table).equals(read_table(undisturbed / "store", table))


def test_after_a_kill_of_the_whole_process_group_the_tables_equal_those_of_an_undisturbed_run(
    tagstream: RunFunction, environment: dict[str, str], undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    command = job(undisturbed, tmp_path / "killed", tiny_model)
    process = start(environment, command)
    wait_for_commits(tmp_path / "killed", process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    n_committed = len(list((tmp_path / "killed").glob("images/run=*/*.parquet")))
    again = tagstream(*command)

    assert 2 <= n_committed < N_SHARDS
    assert again.returncode == 0, again.stderr
    assert f"in {N_SHARDS - n_committed} shards" in again.stdout
    assert_equal(tmp_path / "killed", undisturbed)


@pytest.mark.long
def test_of_two_jobs_at_once_one_that_wakes_up_late_adds_and_changes_nothing(
    environment: dict[str, str], undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    command = job(undisturbed, tmp_path / "store", tiny_model)
    late, other = start(environment, command), start(environment, command)
    wait_for_commits(tmp_path / "store", late, 1)
    late.send_signal(signal.SIGSTOP)
    _, errors = other.communicate(timeout=240)
    late.send_signal(signal.SIGCONT)
    _, late_errors = late.communicate(timeout=240)

    assert (other.returncode, late.returncode) == (0, 0), errors + late_errors
    assert_equal(tmp_path / "store", undisturbed)


@pytest.mark.long
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
