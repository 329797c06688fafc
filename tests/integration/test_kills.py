"""Workers that are killed while a job runs: the job goes on, and every row is there once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.dataflow import actor_pool
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import LabelFunction, label_with
from tests.fixtures.processes.ray_processes import killing, wait_for, waiting_read
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.stored.queries import read_table

N_SHARDS, N_SAMPLES = 8, 24


def waiting_labeler(over: Path) -> type[InstantLabeler]:
    """A labeler that is at work on its first batches until the last kill."""

    class WaitingLabeler(InstantLabeler):
        def __call__(self, batches: pa.Table) -> pa.Table:
            wait_for(over)
            return super().__call__(batches)

    return WaitingLabeler


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source and the store that one job made of it, without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_tars(folder / "source", N_SHARDS, N_SAMPLES)
    label_with(tiny_model, folder / "source", folder / "store", labeler_class=InstantLabeler)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("title", "n_kills", "decode_in"),
    [
        ("WaitingLabeler", 2, "actor"),
        ("ReadShards", 3, "actor"),
        ("WaitingLabeler", 2, "read"),
        ("ReadShards", 3, "read"),
    ],
)
def test_after_kills_of_workers_every_row_is_there_once(
    shared_ray: str,
    label_instantly: LabelFunction,
    undisturbed: Path,
    tmp_path: Path,
    title: str,
    n_kills: int,
    decode_in: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = tmp_path / "over"
    settings: dict[str, Any] = {"batch_size": 4, "decode_in": decode_in}
    if title == "ReadShards":
        read = waiting_read(actor_pool.read_batches_or_failure, over)
        monkeypatch.setattr(actor_pool, "read_batches_or_failure", read)
    else:
        settings["labeler_class"] = waiting_labeler(over)
    with killing(title, n_kills, over) as killed:
        outcome = label_instantly(undisturbed / "source", tmp_path / "store", address=shared_ray, **settings)

    assert len(killed) == n_kills
    assert outcome.record.n_images == N_SHARDS * N_SAMPLES
    for table in ("images", "labels"):
        assert read_table(tmp_path / "store", table).equals(read_table(undisturbed / "store", table))
