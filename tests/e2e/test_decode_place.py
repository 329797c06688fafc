"""Images that are decoded on a node without a device, whose workers are killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.processes.commands import running
from tests.fixtures.processes.ray_processes import killing
from tests.fixtures.servers.two_nodes import two_nodes
from tests.fixtures.stored.queries import read_table

N_SHARDS, N_SAMPLES, N_KILLS = 12, 24, 3
GPU_NODE = {"num_cpus": 2, "resources": {"gpu_node": 1}}


def job(source: Path, store: Path, address: str, decode_in: str) -> list[object]:
    settings = ["--batch-size", 4, "--decode-s", 0.05, "--decode-in", decode_in, "--resource", "gpu_node"]
    return [sys.executable, ROOT / "tests" / "soak" / "instant_job.py", source, store, *settings, "--address", address]


@pytest.mark.long
def test_when_workers_that_decode_elsewhere_are_killed_every_row_is_there_once(tmp_path: Path) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    with two_nodes(GPU_NODE, {"num_cpus": 4}) as (address, raylet):
        with running(job(tmp_path / "source", tmp_path / "whole", address, "actor"), os.environ) as undisturbed:
            _, reason = undisturbed.communicate(timeout=150)
        with (
            running(job(tmp_path / "source", tmp_path / "killed", address, "read"), os.environ) as process,
            killing("ReadShards", N_KILLS, of=psutil.Process(raylet)) as killed,
        ):
            output, errors = process.communicate(timeout=150)

    assert (undisturbed.returncode, process.returncode) == (0, 0), reason + errors
    assert len(killed) == N_KILLS
    assert f"Labelled {N_SHARDS * N_SAMPLES} images in {N_SHARDS} shards" in output
    for table in ("images", "labels"):
        assert read_table(tmp_path / "killed", table).equals(read_table(tmp_path / "whole", table))
