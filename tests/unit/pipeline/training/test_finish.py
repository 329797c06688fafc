"""What a finished training leaves beside its weights: the table of metrics, the curves and the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from model import Recognizer
from pipeline.training.card import write_card
from pipeline.training.checkpoints import Checkpoints, TrainingState
from pipeline.training.curves import draw_curves
from pipeline.training.examples import Position
from pipeline.training.finish import METRICS, metrics_table, write_finished_folder
from pipeline.training.settings import TrainSettings

SETTINGS = TrainSettings(steps=12_000, noise_words=("größe", "{photo}"), dtype="float16").described()
FACTS = {
    "name": "my-model",
    "command": "tagstream train 'my corpus' --out my-model --config {x}.toml",
    "data": "my corpus",
    "workers": 2,
}


def row(step: int, **values: Any) -> dict[str, Any]:
    """A row as the trainer logs it; a key that the table does not have is among them."""
    return {
        "step": step,
        "label_loss": 4.0 / step,
        "denoise_loss": None,
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
        "images_per_s": 100.0,
        "steps_per_s": 3.0,
        "wait_share": 0.0,
        "n_unreadable": 0,
        "seconds": 1234.0 * step,
        "hit_1": None,
        "recall_5": None,
        "recall_10": None,
        **values,
    }


def state_of(*rows: dict[str, Any]) -> TrainingState:
    return TrainingState(step=rows[-1]["step"], positions=[Position()], settings=SETTINGS, metrics=list(rows))


MEASURED = state_of(
    row(1),
    row(2, hit_1=0.125, recall_5=0.25, recall_10=0.375),
    row(3),
    row(4, hit_1=0.5, recall_5=0.6254, recall_10=0.75),
)
UNMEASURED = state_of(row(1), row(2))


class TestMetrics:
    """The table of the logged steps."""

    def test_every_logged_step_is_a_row(self) -> None:
        assert metrics_table(MEASURED).column("step").to_pylist() == [1, 2, 3, 4]

    def test_its_columns_are_those_of_the_schema(self) -> None:
        assert metrics_table(MEASURED).schema.equals(METRICS)

    def test_what_was_not_measured_is_null(self) -> None:
        table = metrics_table(MEASURED)
        assert table.column("recall_10").to_pylist() == [None, 0.375, None, 0.75]
        assert table.column("denoise_loss").null_count == 4

    def test_a_column_that_a_row_lacks_is_null(self) -> None:
        assert metrics_table(state_of({"step": 1})).column("hit_1").to_pylist() == [None]

    def test_without_rows_it_is_an_empty_table_of_the_schema(self) -> None:
        table = metrics_table(TrainingState(step=0, positions=[], settings={}))
        assert (table.num_rows, table.schema) == (0, METRICS)

    def test_it_survives_parquet(self, tmp_path: Path) -> None:
        pq.write_table(metrics_table(MEASURED), tmp_path / "metrics.parquet")
        assert pq.read_table(tmp_path / "metrics.parquet").equals(metrics_table(MEASURED))


class TestCard:
    """The model card."""

    @pytest.fixture
    def card(self, tmp_path: Path):
        """A function that writes a card and gives its text."""

        def write(state: TrainingState = MEASURED, step: int = 4, **facts: Any) -> str:
            write_card(tmp_path / "README.md", metrics_table(state), state.settings, step, {**FACTS, **facts})
            return (tmp_path / "README.md").read_text("utf-8")

        return write

    def test_its_front_matter_is_yaml_that_says_what_the_model_is(self, card) -> None:
        empty, front, _ = card().split("---\n", 2)
        values = yaml.safe_load(front)
        assert empty == ""
        assert (values["library_name"], values["pipeline_tag"]) == ("transformers", "image-classification")
        assert "nxtp-recognizer" in values["tags"]

    def test_its_title_is_the_models_name(self, card) -> None:
        assert "\n# my-model\n" in card()

    def test_it_shows_the_command_as_it_was_given(self, card) -> None:
        assert f"```\n{FACTS['command']}\n```" in card()

    def test_it_shows_every_fact_once_in_its_table(self, card) -> None:
        lines = card(teacher="the-teacher").splitlines()
        for line in ("| data | my corpus |", "| workers | 2 |", "| teacher | the-teacher |"):
            assert lines.count(line) == 1

    @pytest.mark.parametrize(
        ("step", "recalls"), [(2, "hit@1 0.125, recall@5 0.250, recall@10 0.375"), (4, "hit@1 0.500, recall@5 0.625")]
    )
    def test_its_recalls_are_those_of_the_weights_step(self, card, step: int, recalls: str) -> None:
        text = card(step=step)
        assert f": {recalls}" in text
        assert f"| weights | of step {step} of 12,000 |" in text

    def test_it_says_at_which_k_an_image_cannot_reach_a_recall_of_one(self, card) -> None:
        measured = {"hit_1": 0.5, "recall_5": 0.5, "recall_10": 0.75, "recall_5_limit": 0.875, "recall_10_limit": 1.0}
        text = card(state_of(row(1, **measured)), 1)
        assert "recall@5 0.500 (at most 0.875), recall@10 0.750." in text
        assert "In that source an image with more than 5 true labels cannot reach a recall@5 of 1." in text
        assert "In that source" not in card(step=2)

    def test_its_time_is_that_of_the_whole_training(self, card) -> None:
        assert "| seconds | 4,936 |" in card(step=2)

    @pytest.mark.parametrize(("state", "step"), [(UNMEASURED, 2), (MEASURED, 3)])
    def test_without_a_recall_of_that_step_it_says_that_there_is_none(
        self, card, state: TrainingState, step: int
    ) -> None:
        text = card(state, step)
        assert "None was made of these weights" in text
        assert "recall@10" not in text

    def test_its_settings_are_json_that_reads_back(self, card) -> None:
        block = card().split("```json\n")[1].split("\n```")[0]
        assert json.loads(block) == SETTINGS

    def test_the_picture_and_the_table_it_names_are_those_that_are_written(self, card) -> None:
        text = card()
        assert "](training.png)" in text
        assert "`metrics.parquet`" in text


class TestCurves:
    """The picture of the training."""

    @pytest.mark.parametrize(
        "state",
        [
            MEASURED,
            UNMEASURED,
            state_of(row(1)),
            state_of(row(1, denoise_loss=2.0), row(2, denoise_loss=1.0)),
            state_of(row(1), row(2, denoise_loss=1.0, hit_1=1.0, recall_5=1.0, recall_10=1.0)),
            state_of(row(1, label_loss=float("nan")), row(2)),
        ],
        ids=["recalls", "no recall", "one row", "denoising", "denoising in part", "a loss that is not finite"],
    )
    def test_it_is_a_picture_of_a_size_to_look_at(self, state: TrainingState, tmp_path: Path) -> None:
        draw_curves(metrics_table(state), tmp_path / "training.png")
        with Image.open(tmp_path / "training.png") as image:
            image.load()
            assert image.format == "PNG"
            assert 600 <= min(image.size) <= max(image.size) <= 2000

    def test_the_recalls_are_drawn(self, tmp_path: Path) -> None:
        pixels = {}
        for name, state in (("with", MEASURED), ("without", state_of(row(1), row(2), row(3), row(4)))):
            draw_curves(metrics_table(state), tmp_path / f"{name}.png")
            with Image.open(tmp_path / f"{name}.png") as image:
                pixels[name] = np.asarray(image.convert("RGB"), np.int16)
        height = len(pixels["with"])
        differs = (pixels["with"] != pixels["without"]).any(axis=(1, 2)).nonzero()[0]
        # In the middle part of the picture, not in that of the loss nor in that of the rate.
        assert height / 3 < differs.mean() < 0.85 * height

    def test_no_figure_stays_open(self, tmp_path: Path) -> None:
        from matplotlib import pyplot

        draw_curves(metrics_table(MEASURED), tmp_path / "training.png")
        assert pyplot.get_fignums() == []


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder finished from the checkpoint of step 2, whose projector is all zero; that of step 4 is not."""
    out = tmp_path_factory.mktemp("finished") / "my-model"
    checkpoints = Checkpoints(str(out))
    recognizer = Recognizer.from_pretrained(tiny_model, device="cpu")
    checkpoints.write(recognizer, MEASURED, {})
    recognizer.module.projector.weight.data.zero_()
    at_two = TrainingState(step=2, positions=[Position()], settings=SETTINGS)
    checkpoints.write(recognizer, at_two, {})
    write_finished_folder(str(out), checkpoints, MEASURED, 2, FACTS)
    return out


class TestFinishedFolder:
    """The folder as a whole."""

    def test_its_weights_are_those_of_the_step_asked_for_in_the_dtype_asked_for(self, finished: Path) -> None:
        recognizer = Recognizer.from_pretrained(finished, device="cpu", dtype="stored")
        assert str(recognizer.dtype) == "torch.float16"
        assert not recognizer.module.projector.weight.any()

    def test_its_metrics_are_those_of_the_whole_training(self, finished: Path) -> None:
        assert pq.read_table(finished / "metrics.parquet").equals(metrics_table(MEASURED))

    def test_its_card_tells_of_that_step(self, finished: Path) -> None:
        text = (finished / "README.md").read_text("utf-8")
        assert "| weights | of step 2 of 12,000 |" in text
        assert "hit@1 0.125, " in text

    def test_everything_that_belongs_to_it_is_there(self, finished: Path) -> None:
        names = {path.name for path in finished.iterdir()}
        assert {"config.json", "model.safetensors", "README.md", "training.png", "metrics.parquet"} <= names
