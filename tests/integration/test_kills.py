"""Workers that are killed while a job runs: the job goes on, and every row is there once."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.fixtures.corpus import shard_bytes, tar_bytes
from tests.fixtures.labelling import LabelFunction, label_with
from tests.fixtures.processes.ray_processes import killing
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.stored.queries import read_table

N_SHARDS, N_SAMPLES = 8, 24
# Of zeros in front of the samples of a compressed shard: half a second in which its reader can be killed.
PADDING_BYTES = 100 << 20


class SlowLabeler(InstantLabeler):
    """Takes its time, so that there is one to be killed in."""

    def __call__(self, batches: pa.Table) -> pa.Table:
        time.sleep(0.1)
        return super().__call__(batches)


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source and the store that one job made of it, without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "source").mkdir()
    padding = gzip.compress(tar_bytes([("padding", bytes(PADDING_BYTES))]), compresslevel=1)
    for shard in range(N_SHARDS):
        samples = gzip.compress(shard_bytes(shard, N_SAMPLES))
        (folder / "source" / f"{shard}.tar.gz").write_bytes(padding + samples)
    label_with(tiny_model, folder / "source", folder / "store", labeler_class=InstantLabeler)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("title", "n_kills", "decode_in"),
    [("SlowLabeler", 2, "actor"), ("ReadShards", 3, "actor"), ("SlowLabeler", 2, "read"), ("ReadShards", 3, "read")],
)
def test_after_kills_of_workers_every_row_is_there_once(
    shared_ray: str,
    label_instantly: LabelFunction,
    undisturbed: Path,
    tmp_path: Path,
    title: str,
    n_kills: int,
    decode_in: str,
) -> None:
    settings: dict[str, Any] = {"labeler_class": SlowLabeler, "batch_size": 4, "decode_in": decode_in}
    with killing(title, n_kills) as killed:
        outcome = label_instantly(undisturbed / "source", tmp_path / "store", address=shared_ray, **settings)

    assert len(killed) == n_kills
    assert outcome.record.n_images == N_SHARDS * N_SAMPLES
    for table in ("images", "labels"):
        assert read_table(tmp_path / "store", table).equals(read_table(undisturbed / "store", table))
