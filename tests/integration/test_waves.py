"""Shards that are read in several waves, and labelled by the same actors."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.actor.labeler import LabelerConfig
from pipeline.labelling import shard_flow
from pipeline.labelling.pending import cut_waves
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import LabelFunction
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.stored.queries import read_table

N_SHARDS, N_SAMPLES = 7, 3


def noting_labeler(folder: Path) -> type[InstantLabeler]:
    """A labeler that notes each process in which its model is loaded."""

    class NotingLabeler(InstantLabeler):
        @staticmethod
        def load_recognizer(config: LabelerConfig) -> Any:
            with (folder / "loads").open("a") as file:
                file.write(f"{os.getpid()}\n")
            return InstantLabeler.load_recognizer(config)

    return NotingLabeler


@pytest.mark.parametrize("limit", [0, pytest.param(13, marks=pytest.mark.long)])
def test_a_model_is_loaded_once_and_the_rows_are_those_of_one_wave(
    shared_ray: str, label_instantly: LabelFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    label_instantly(tmp_path / "source", tmp_path / "whole", limit=limit)
    monkeypatch.setattr(shard_flow, "cut_waves", partial(cut_waves, size=2))
    outcome = label_instantly(
        tmp_path / "source",
        tmp_path / "waves",
        labeler_class=noting_labeler(tmp_path),
        address=shared_ray,
        actors=1,
        limit=limit,
    )
    n_expected = (limit and -(-limit // N_SAMPLES)) or N_SHARDS
    assert outcome.record.n_shards_committed == n_expected
    assert list(Counter((tmp_path / "loads").read_text().split()).values()) == [1]
    for table in ("images", "labels"):
        assert read_table(tmp_path / "waves", table).equals(read_table(tmp_path / "whole", table))
