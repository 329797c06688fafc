"""Whatever stands still ends with one sentence that says what does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from pipeline.actor.labeler import LabelerConfig
from pipeline.dataflow import waves
from pipeline.errors import ClusterError
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import LabelFunction
from tests.fixtures.recognizers.instant_labeler import InstantLabeler, InstantRecognizer


class StuckRecognizer(InstantRecognizer):
    """Never comes back from the device."""

    def sample(self, *_: Any, **__: Any) -> Any:
        time.sleep(1000)


class StuckLabeler(InstantLabeler):
    @staticmethod
    def load_recognizer(config: LabelerConfig) -> Any:
        return StuckRecognizer()


class NeverReadyLabeler(InstantLabeler):
    @staticmethod
    def load_recognizer(config: LabelerConfig) -> Any:
        time.sleep(1000)


# The first: actors that are stuck in the tests below keep their CPUs for a while.
@pytest.mark.long
def test_a_job_whose_cpus_others_hold_does_not_wait_for_ever(
    shared_ray: str, label_instantly: LabelFunction, tmp_path: Path
) -> None:
    @ray.remote
    class Holder:
        def is_there(self) -> bool:
            return True

    n_cpus = ray.cluster_resources()["CPU"]
    holder = Holder.options(num_cpus=n_cpus).remote()
    assert ray.get(holder.is_there.remote())
    write_tars(tmp_path / "source", 1, 4)
    try:
        with pytest.raises(ClusterError, match="perhaps other jobs hold the CPUs"):
            label_instantly(tmp_path / "source", tmp_path / "store", address=shared_ray, no_progress_timeout_s=1)
    finally:
        ray.kill(holder)


@pytest.mark.long
def test_a_stuck_actor_is_named_with_what_it_works_on(
    shared_ray: str, label_instantly: LabelFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine takes its time to start the actor, which alone can say what it works on.
    monkeypatch.setattr(waves, "_SLACK_S", 120)
    write_tars(tmp_path / "source", 1, 4)
    stuck = {"labeler_class": StuckLabeler, "no_progress_timeout_s": 8}
    with pytest.raises(ClusterError) as caught:
        label_instantly(tmp_path / "source", tmp_path / "store", address=shared_ray, **stuck)
    message = str(caught.value)
    assert "a labelling actor (process " in message
    assert f"on {os.uname().nodename}) is stuck" in message
    assert "4 images of shard 00000, from sample 0 on" in message


def test_a_model_that_never_gets_loaded_is_a_standstill(
    shared_ray: str, label_instantly: LabelFunction, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", 1, 4)
    never = {"labeler_class": NeverReadyLabeler, "no_progress_timeout_s": 1}
    with pytest.raises(ClusterError, match=r"longer than the 1 s .*unfinished: .*NeverReadyLabeler"):
        label_instantly(tmp_path / "source", tmp_path / "store", address=shared_ray, **never)
