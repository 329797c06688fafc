"""Which nodes of a cluster read and which label: two raylets with resources and labels of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.actor.labeler import LabelerConfig
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.servers.two_nodes import two_nodes
from tests.fixtures.stored.queries import rows

# Two raylets, and a job in a process of its own for each test.
pytestmark = pytest.mark.long
N_SHARDS, N_SAMPLES = 12, 24
HEAD = {"num_cpus": 3}
# Reads and labels; the "GPU" is one that nothing but its name has to do with GPUs.
GPU_NODE = {"num_cpus": 2, "resources": {"gpu_node": 1}, "labels": {"kind": "gpu"}}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes."""
    with two_nodes(HEAD, GPU_NODE) as (address, _):
        yield address


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placed") / "source"
    write_tars(folder, N_SHARDS, N_SAMPLES)
    return folder


@pytest.fixture(scope="module")
def expected(source: Path) -> list[tuple[Any, ...]]:
    """Rows of labels as one process gives them, shard after shard, without Ray."""
    settings = LabelSettings(top_k=5)
    labeler = InstantLabeler(LabelerConfig.of("demo", settings, dtype="float32", device="cpu", n_threads=1))
    shards = find_source(str(source)).shards
    images = [row for shard in shards for batch in read_batches(shard, 8) for row in labeler(batch).to_pylist()]
    return [
        (image["shard"], image["index"], rank, label["label"], label["score"])
        for image in images
        for rank, label in enumerate(image["labels"], start=1)
    ]


def run(
    source: Path, folder: Path, settings: dict[str, Any], address: str, n_actors: int
) -> dict[str, set[tuple[str, str]]]:
    """Labels the source, when so many actors are there. Returns: node and process of whatever read and labelled."""
    notes = folder / "notes"
    notes.mkdir(parents=True)
    program = str(ROOT / "tests" / "fixtures" / "processes" / "placed_job.py")
    arguments = [str(source), str(folder / "store"), str(notes), json.dumps(settings), str(n_actors), address]
    job = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert job.returncode == 0, job.stderr
    told = [path.name.split("-") for path in notes.iterdir()]
    return {kind: {(node, pid) for what, node, pid in told if what == kind} for kind in ("read", "label")}


def nodes(places: set[tuple[str, str]]) -> set[str]:
    return {node for node, _ in places}


def label_rows(store: Path) -> list[tuple[Any, ...]]:
    return rows(store, 'SELECT shard, "index", rank, label, score FROM labels ORDER BY ALL')


def test_two_nodes_label_together_and_give_the_rows_of_one_process(
    source: Path, address: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    places = run(source, tmp_path, {}, address, n_actors=2)
    assert len(nodes(places["label"])) == 2
    assert label_rows(tmp_path / "store") == expected


def test_only_nodes_with_the_resource_label_while_others_read(
    source: Path, address: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    places = run(source, tmp_path, {"actor_resources": {"gpu_node": 1}}, address, n_actors=1)
    assert len(nodes(places["label"])) == 1
    assert nodes(places["read"]) - nodes(places["label"])
    assert label_rows(tmp_path / "store") == expected


def test_a_pool_grows_within_its_bounds_and_only_on_nodes_with_the_label(
    source: Path, address: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    chosen = {"label_selector": {"kind": "gpu"}, "min_actors": 1, "max_actors": 2}
    places = run(source, tmp_path, chosen, address, n_actors=2)
    assert (len(nodes(places["label"])), len(places["label"])) == (1, 2)
    assert label_rows(tmp_path / "store") == expected
