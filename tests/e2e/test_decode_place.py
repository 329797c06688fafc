"""Images that are decoded on a node without a device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.store.store import Store
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.processes.commands import running
from tests.fixtures.processes.ray_processes import killing
from tests.fixtures.servers.two_nodes import two_nodes
from tests.fixtures.stored.queries import read_table

# Two raylets, and jobs in processes of their own.
pytestmark = pytest.mark.long
# More than a job reads before it knows where to decode.
N_SHARDS, N_SAMPLES, N_KILLS = 40, 12, 3
GPU_NODE = {"num_cpus": 2, "resources": {"gpu_node": 1}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """A cluster's address and the process id of the raylet of its node without a device."""
    with two_nodes(GPU_NODE, {"num_cpus": 4}) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "source"
    write_tars(folder, N_SHARDS, N_SAMPLES)
    return folder


@pytest.fixture(scope="module")
def decoded_in_the_actor(source: Path, cluster: tuple[str, int]) -> Path:
    """The store of an undisturbed job."""
    store = source.with_name("actor")
    subprocess.run(list(map(str, job(source, store, cluster[0], "actor", 0.001))), check=True, timeout=240)
    return store


def job(source: Path, store: Path, address: str, decode_in: str, decode_s: float, *more: object) -> list[object]:
    settings = ["--batch-size", 4, "--decode-in", decode_in, "--resource", "gpu_node", "--decode-s", decode_s, *more]
    return [sys.executable, ROOT / "tests" / "soak" / "instant_job.py", source, store, *settings, "--address", address]


def assert_equal(store: Path, expected: Path) -> None:
    for table in ("images", "labels"):
        assert read_table(store, table).equals(read_table(expected, table))


def test_when_workers_that_decode_elsewhere_are_killed_every_row_is_there_once(
    source: Path, cluster: tuple[str, int], decoded_in_the_actor: Path, tmp_path: Path
) -> None:
    address, raylet = cluster
    # No worker is done with a shard before the last kill.
    over = tmp_path / "over"
    command = job(source, tmp_path / "store", address, "read", 0.001, "--read-after", over)
    with (
        running(command, os.environ) as process,
        killing("ReadShards", N_KILLS, over, of=psutil.Process(raylet)) as killed,
    ):
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert len(killed) == N_KILLS
    assert f"Labelled {N_SHARDS * N_SAMPLES} images in {N_SHARDS} shards" in output
    assert_equal(tmp_path / "store", decoded_in_the_actor)


@pytest.mark.parametrize(("decode_s", "label_s", "place"), [(0.001, 0.005, "actor"), (0.04, 0.005, "read")])
def test_a_job_learns_from_its_first_shards_where_to_decode(
    source: Path,
    cluster: tuple[str, int],
    decoded_in_the_actor: Path,
    tmp_path: Path,
    decode_s: float,
    label_s: float,
    place: str,
) -> None:
    command = job(source, tmp_path, cluster[0], "auto", decode_s, "--label-s", label_s)
    with running(command, os.environ) as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    store = Store(str(tmp_path))
    (name,) = store.run_names()
    (record,) = store.run(name).read_jobs()
    assert record.workers["decode_in"] == place
    assert "images/s" in record.workers["decode_reason"]
    assert_equal(tmp_path, decoded_in_the_actor)
