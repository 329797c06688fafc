"""Training jobs in this process and in workers: they learn, label as serving does, and go on after a stop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ray import cloudpickle

from model import Recognizer
from pipeline.actor.labeler import Labeler
from pipeline.errors import StoreError, TagstreamError
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.job import TrainJob, TrainRequest, source_shards
from pipeline.training.settings import ModelSizes, TrainSettings
from pipeline.training.trainer import Trainer, TrainPlan
from tests.fixtures.corpus import write_coloured_tars
from tests.fixtures.labelling import LabelFunction
from tests.fixtures.recognizers.tiny_recognizer import TINY_SIZES
from tests.fixtures.stored.queries import rows

# Workers do not find the tests' modules.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SIZES = ModelSizes(
    **TINY_SIZES,
    vocab_size=320,
)
SETTINGS = {
    "steps": 60,
    "batch_size": 16,
    "learning_rate": 6e-3,
    "warmup_steps": 5,
    "log_every": 1,
    "eval_every": 20,
    "eval_images": 40,
    "checkpoint_every": 20,
    "shuffle_buffer": 50,
    "model": SIZES,
}
TrainFunction = Callable[..., TrainJob]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with `train` and `val`."""
    folder = tmp_path_factory.mktemp("colours")
    write_coloured_tars(folder / "train", 3, 50, seed=1)
    write_coloured_tars(folder / "val", 1, 40, seed=2)
    return folder


@pytest.fixture(scope="module")
def train(shared_ray: str, colours: Path) -> TrainFunction:
    """Trains on the colours; settings as keywords."""

    def run(out: Any, *, request: dict[str, Any] | None = None, **settings: Any) -> TrainJob:
        asked = {
            "source": str(colours / "train"),
            "val": str(colours / "val"),
            "out": str(out),
            "settings": TrainSettings(**{**SETTINGS, **settings}),
        }
        job = TrainJob(TrainRequest(**{**asked, **(request or {})}))
        job.run()
        return job

    return run


@pytest.fixture(scope="module")
def trained(train: TrainFunction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained from scratch on the colours, without a stop."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    train(folder)
    return folder


def metrics(out: Any) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(Path(str(out)) / "metrics.parquet").to_pydict()
    return columns


def plan_of(out: Any, model: Any, colours: Path, **settings: Any) -> TrainPlan:
    asked = TrainSettings(**{**SETTINGS, **settings})
    request = TrainRequest(source=str(colours / "train"), out=str(out), init=str(model), settings=asked)
    return TrainPlan(
        out=str(out),
        start_model=str(model),
        shards=source_shards(str(colours / "train")),
        val_shards=source_shards(str(colours / "val")),
        settings=asked,
        asked=request.described(),
        device="cpu",
        n_threads=1,
    )


def test_a_model_from_scratch_learns_and_its_folder_is_complete(trained: Path) -> None:
    logged = metrics(trained)
    assert logged["step"] == list(range(1, 61))
    assert logged["label_loss"][-1] < 0.3 * logged["label_loss"][0]
    recalls = [recall for recall in logged["hit_1"] if recall is not None]
    # Four colours, the same for training and validation.
    assert recalls[-1] > 0.95
    names = {path.name for path in trained.iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "metrics.parquet", "training.png"} <= names
    assert Checkpoints(str(trained)).steps()[-2:] == [40, 60]


@pytest.mark.long
def test_labels_made_by_the_trainer_equal_those_of_the_saved_folder(
    trained: Path, label: LabelFunction, colours: Path, tmp_path: Path
) -> None:
    trainer = Trainer(plan_of(trained, "unused", colours), 0, 1, lambda report: None)
    images = [sample for shard in source_shards(str(colours / "val")) for sample in read_images(shard)]
    by_trainer = trainer.labeler.recognizer.label(images, top_k=5)
    label(colours / "val", tmp_path / "store", model=Checkpoints(str(trained)).folder(60))
    stored = rows(tmp_path / "store", 'SELECT "index", label, score FROM labels ORDER BY "index", rank')

    by_command = [[(text, score) for index, text, score in stored if index == number] for number in range(len(images))]
    assert [[text for text, _ in image] for image in by_command] == [
        [found.text for found in image] for image in by_trainer
    ]
    # Other batches, other order of additions.
    for stored_image, trained_image in zip(by_command, by_trainer, strict=True):
        scores = [found.score for found in trained_image]
        assert [score for _, score in stored_image] == pytest.approx(scores, rel=1e-4)


def read_images(shard: Any) -> list[bytes]:
    from pipeline.sources.batches import read_batches

    tables = list(read_batches(shard, 64))
    return [sample["data"] for table in tables for row in table.column("samples").to_pylist() for sample in row]


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    train: TrainFunction, trained: Path, colours: Path, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop_at_33(report: dict[str, Any]) -> None:
        if report.get("step") == 33:
            raise StoppedError

    out = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        Trainer(plan_of(out, trained / "initial", colours), 0, 1, stop_at_33).run()
    assert Checkpoints(str(out)).steps() == [20]
    train(out, request={"resume": True, "init": str(trained / "initial")})

    whole, resumed = metrics(trained), metrics(out)
    # Not merely close: the same numbers, since order, draws and arithmetic are the same.
    for column in ("step", "label_loss", "learning_rate", "gradient_norm", "recall_10"):
        assert resumed[column] == whole[column]
    weights = [Recognizer.from_pretrained(folder).module.state_dict() for folder in (trained, out)]
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])


def test_a_folder_with_a_run_is_not_trained_over(train: TrainFunction, trained: Path) -> None:
    with pytest.raises(StoreError, match="--resume"):
        train(trained)


def test_a_run_is_not_resumed_with_other_settings(train: TrainFunction, trained: Path) -> None:
    with pytest.raises(StoreError, match=r"learning_rate 0.006 -> 0.1"):
        train(trained, request={"resume": True}, learning_rate=0.1)


def test_a_run_is_not_resumed_on_another_source(train: TrainFunction, trained: Path, colours: Path) -> None:
    with pytest.raises(StoreError, match=r"source .*train -> .*val"):
        train(trained, request={"resume": True, "source": str(colours / "val")})


def test_a_source_without_labels_is_an_error_that_says_so(train: TrainFunction, tmp_path: Path) -> None:
    with pytest.raises(TagstreamError, match="no labels to learn a vocabulary from"):
        train(tmp_path / "model", targets="captions")


@pytest.mark.long
def test_training_to_and_from_object_storage_works(train: TrainFunction, s3: str, tmp_path: Path) -> None:
    out = f"{s3}/{tmp_path.name}/model"
    train(out, steps=20, eval_every=20, checkpoint_every=10)
    assert Checkpoints(out).steps() == [10, 20]
    train(out, request={"resume": True}, steps=20, eval_every=20, checkpoint_every=10)


@pytest.mark.long
def test_a_teachers_confident_labels_are_learned(
    train: TrainFunction, trained: Path, colours: Path, tmp_path: Path
) -> None:
    write_unlabelled(colours, tmp_path / "unlabelled")
    train(
        tmp_path / "student",
        request={
            "source": str(tmp_path / "unlabelled"),
            "init": str(trained / "initial"),
            "teacher": str(trained),
            "min_score": 0.4,
        },
    )
    recalls = [recall for recall in metrics(tmp_path / "student")["hit_1"] if recall is not None]
    assert recalls[-1] > 0.95


def write_unlabelled(colours: Path, folder: Path) -> None:
    from tests.fixtures.corpus import tar_bytes

    folder.mkdir()
    for shard in source_shards(str(colours / "train")):
        members = [(f"{number:04d}.jpg", data) for number, data in enumerate(read_images(shard))]
        (folder / f"{shard.name}.tar").write_bytes(tar_bytes(members))


@pytest.mark.long
def test_a_killed_worker_is_replaced_and_training_goes_on_from_the_last_checkpoint(
    train: TrainFunction, colours: Path, tmp_path: Path
) -> None:
    import os

    marker = tmp_path / "died"

    class Dying(Labeler):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self._n_calls = 0
            encode_images = self.recognizer.module.encode_images

            def counting(pixel_values: Any) -> Any:
                self._n_calls += 1
                if self._n_calls == 26 and not marker.exists():
                    marker.touch()
                    os._exit(1)
                return encode_images(pixel_values)

            self.recognizer.module.encode_images = counting

    train(
        tmp_path / "model",
        request={"n_workers": 2, "labeler_class": Dying},
        steps=30,
        eval_every=10,
        checkpoint_every=10,
    )
    assert marker.exists()
    assert metrics(tmp_path / "model")["step"] == list(range(1, 31))
