"""A node of the cluster that dies while a job runs on it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.processes.commands import n_commits, running, wait_until
from tests.fixtures.servers.two_nodes import two_nodes
from tests.fixtures.stored.queries import read_table

N_SHARDS, N_SAMPLES = 12, 24
# For a job: its workers alone need a minute on a busy machine to start.
PATIENCE_S = 480
# A dead node is given up after two seconds, not after half a minute.
IMPATIENT = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "2"}


@pytest.fixture
def cluster() -> Iterator[tuple[str, int]]:
    """A cluster's address and the process id of its second node's raylet."""
    with two_nodes({"num_cpus": 2}, {"num_cpus": 2}, IMPATIENT) as nodes:
        yield nodes


def job(source: Path, store: Path, address: str, seconds_a_batch: float) -> list[object]:
    settings = ["--batch-size", 4, "--seconds-a-batch", seconds_a_batch, "--address", address]
    return [sys.executable, ROOT / "tests" / "soak" / "instant_job.py", source, store, *settings]


@pytest.mark.long
def test_when_a_node_dies_the_others_do_its_work_and_every_row_is_there_once(
    tmp_path: Path, cluster: tuple[str, int]
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    address, raylet = cluster
    with running(job(tmp_path / "source", tmp_path / "whole", address, 0), os.environ) as undisturbed:
        _, reason = undisturbed.communicate(timeout=PATIENCE_S)
    with running(job(tmp_path / "source", tmp_path / "killed", address, 0.5), os.environ) as process:
        wait_until(lambda: n_commits(tmp_path / "killed") > 0, process)
        os.kill(raylet, signal.SIGKILL)
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert (undisturbed.returncode, process.returncode) == (0, 0), reason + errors
    assert f"Labelled {N_SHARDS * N_SAMPLES} images in {N_SHARDS} shards" in output
    assert "raylet" not in output + errors
    for table in ("images", "labels"):
        assert read_table(tmp_path / "killed", table).equals(read_table(tmp_path / "whole", table))
