"""Measures on held-out images: what they are of, how workers share it, and that images are read once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.actor.labeler import LabelerConfig
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from pipeline.training import evaluation as evaluation_module
from pipeline.training.evaluation import Evaluation
from pipeline.training.settings import TrainSettings
from tests.fixtures.corpus import jpeg, tar_bytes
from tests.fixtures.recognizers.instant_labeler import InstantLabeler

BATCH = 4
TRUTHS = [
    '{"labels": ["cat", "dog"]}',
    '{"labels": ["RED  car"]}',
    '{"labels": ["zebra"]}',
    "{}",
    '{"labels": []}',
    # More than five labels can hold.
    '{"labels": ["cat", "dog", "tree", "cup", "sky", "lamp", "key"]}',
]


@pytest.fixture(scope="module")
def labeler() -> InstantLabeler:
    settings = LabelSettings(top_k=10)
    return InstantLabeler(LabelerConfig.of("none", settings, dtype="float32", device="cpu", n_threads=1))


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    """Three shards of ten images, most of which have a truth, some a caption instead."""
    for shard in range(3):
        members = []
        for number in range(10 * shard, 10 * (shard + 1)):
            members += [(f"{number}.jpg", jpeg(number)), (f"{number}.json", TRUTHS[number % len(TRUTHS)].encode())]
            members.append((f"{number}.txt", b"a tree and a boat"))
        (tmp_path / f"{shard}.tar").write_bytes(tar_bytes(members))
    return find_source(str(tmp_path)).shards


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reads in this process what Ray would read; lists the shards that were begun."""
    names: list[str] = []

    def read_tables(shards: list[Shard]) -> Iterator[pa.Table]:
        for shard in shards:
            names.append(shard.name)
            yield from read_batches(shard, BATCH)

    monkeypatch.setattr(evaluation_module, "read_tables", read_tables)
    return names


def plain_means(labeler: InstantLabeler, shards: list[Shard], n_images: int, truth_of: Callable[[Any], Any]) -> Any:
    """What is measured by its definition, one image after another."""
    values: dict[str, list[float]] = defaultdict(list)
    rows = [row for shard in shards for batch in read_batches(shard, BATCH) for row in labeler(batch).to_pylist()]
    for row in rows[:n_images]:
        truth = {" ".join(name.lower().split()) for name in truth_of(row) or ()}
        found = [label["label"].lower() for label in row["labels"]]
        if not truth:
            continue
        values["hit_1"].append(found[0] in truth)
        for k in (5, 10):
            values[f"recall_{k}"].append(len(truth & set(found[:k])) / len(truth))
            values[f"recall_{k}_limit"].append(min(k, len(truth)) / len(truth))
    return {name: pytest.approx(sum(of_images) / len(of_images)) for name, of_images in values.items()}


def alone(values: list[float]) -> list[float]:
    """The sum over one worker."""
    return values


def test_the_measures_are_those_of_plain_computation_over_the_images_with_a_truth(
    labeler: InstantLabeler, shards: list[Shard]
) -> None:
    measured = Evaluation(shards, TrainSettings(targets="labels"), 0, 1).measure(labeler, alone)
    assert measured == plain_means(labeler, shards, 30, lambda row: row["truth"])
    assert 0 < measured["hit_1"] < 1
    assert 0 < measured["recall_5"] < measured["recall_5_limit"] < measured["recall_10_limit"] == 1


def test_what_is_learned_is_what_is_asked_for(labeler: InstantLabeler, shards: list[Shard]) -> None:
    measured = Evaluation(shards, TrainSettings(targets="captions"), 0, 1).measure(labeler, alone)
    assert measured == plain_means(labeler, shards, 30, lambda row: ["tree", "boat"])


@pytest.mark.parametrize(("wanted", "n_images", "n_shards"), [(1, 4, 1), (4, 4, 1), (5, 8, 1), (12, 14, 2)])
def test_the_first_images_are_taken_in_whole_batches_and_no_more_is_read(
    labeler: InstantLabeler, shards: list[Shard], begun: list[str], wanted: int, n_images: int, n_shards: int
) -> None:
    settings = TrainSettings(targets="captions", eval_images=wanted)
    seen: list[float] = []
    measured = Evaluation(shards, settings, 0, 1).measure(labeler, lambda values: seen.extend(values) or values)
    assert seen[0] == n_images
    assert len(begun) == n_shards
    assert measured == plain_means(labeler, shards, n_images, lambda row: ["tree", "boat"])


@pytest.mark.parametrize("n_ranks", [2, 3, 9])
def test_workers_together_measure_what_one_does_alone(
    labeler: InstantLabeler, shards: list[Shard], n_ranks: int
) -> None:
    settings = TrainSettings(eval_images=20)
    whole: list[float] = []
    expected = Evaluation(shards, settings, 0, 1).measure(labeler, lambda values: whole.extend(values) or values)
    shares: list[list[float]] = []
    for rank in range(n_ranks):
        Evaluation(shards, settings, rank, n_ranks).measure(labeler, lambda values: shares.append(values) or values)
    total = [sum(values) for values in zip(*shares, strict=True)]
    assert total == pytest.approx(whole)
    for rank in range(n_ranks):
        measured = Evaluation(shards, settings, rank, n_ranks).measure(labeler, lambda values: total)
        assert measured == pytest.approx(expected)


def test_without_a_truth_nothing_is_measured(labeler: InstantLabeler, tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes([("a.jpg", jpeg(0))]))
    measured = Evaluation(find_source(str(tmp_path)).shards, TrainSettings(), 0, 1).measure(labeler, alone)
    assert set(measured.values()) == {None}


def test_images_are_read_once_and_labelled_anew_each_time(
    labeler: InstantLabeler, shards: list[Shard], begun: list[str]
) -> None:
    evaluation = Evaluation(shards, TrainSettings(), 0, 1)
    first = evaluation.measure(labeler, alone)
    assert evaluation.measure(labeler, alone) == first
    assert len(begun) == 3

    class Forgetful(InstantLabeler):
        def __call__(self, batches: pa.Table) -> pa.Table:
            rows = super().__call__(batches)
            return rows.set_column(rows.column_names.index("labels"), "labels", [[[]] * rows.num_rows])

    forgetful = Forgetful(labeler.config)
    measured = evaluation.measure(forgetful, alone)
    assert (measured["hit_1"], measured["recall_5"], measured["recall_10"]) == (0.0, 0.0, 0.0)
