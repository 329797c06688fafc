"""How `tagstream train` puts its settings together, and its live line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import jobs.verbs.train as train_module
from jobs.cli import tagstream
from jobs.verbs.train import describe, merged
from pipeline.training.progress import TrainProgress

ROW = {
    "phase": "training",
    "step": 120,
    "label_loss": 1.2345,
    "images_per_s": 98.6,
    "steps_per_s": 2.0,
    "recall_10": 0.5,
    "recall_10_limit": 1.0,
}


def test_what_is_given_wins_over_the_preset_name_by_name() -> None:
    preset = {"steps": 10, "seed": 1, "model": {"image_size": 128, "vocab_size": 2048}}
    given = {"steps": 20, "model": {"image_size": 64}, "corruption": {"weight": 0.5}}
    assert merged(preset, given) == {
        "steps": 20,
        "seed": 1,
        "model": {"image_size": 64, "vocab_size": 2048},
        "corruption": {"weight": 0.5},
    }


def test_a_missing_package_is_named_before_the_work_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(train_module, "_NEEDED", ("numpy", "no_such_package"))
    result = CliRunner().invoke(tagstream, ["train", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "not installed: no_such_package; pip install 'tagstream[train]'" in result.output
    assert not (tmp_path / "out").exists()


def test_the_line_tells_of_steps_loss_rate_recall_and_time() -> None:
    progress = TrainProgress(n_steps=1200)
    progress.update(ROW)
    assert describe(progress, 65.0) == (
        "step 120/1,200 · loss 1.234 · 99 images/s · recall@10 0.500 · 1:05 elapsed · 9:00 to go"
    )


def test_the_line_tells_what_recall_is_possible_where_that_is_less_than_one() -> None:
    progress = TrainProgress(n_steps=1200)
    progress.update({**ROW, "recall_10_limit": 0.75})
    assert " · recall@10 0.500 (at most 0.750) · " in describe(progress, 65.0)


def test_the_last_recall_stays_on_the_line_between_evaluations() -> None:
    progress = TrainProgress(n_steps=1200)
    progress.update(ROW)
    progress.update({**ROW, "step": 130, "recall_10": None})
    assert "recall@10 0.500" in describe(progress, 65.0)


def test_during_an_evaluation_the_line_says_so() -> None:
    progress = TrainProgress(n_steps=1200)
    progress.update(ROW)
    progress.update({"phase": "evaluating"})
    assert describe(progress, 65.0).endswith("to go · evaluating")


def test_before_the_first_step_the_line_tells_what_the_job_does() -> None:
    assert describe(TrainProgress(n_steps=1200, phase="loading the model"), 7.0) == "loading the model ... 0:07"


def test_a_wrong_setting_is_named_with_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[corruption]\nweight = 'much'\n")
    options = ["--out", str(tmp_path / "out"), "--preset", "demo", "--config", str(tmp_path / "mine.toml")]
    result = CliRunner().invoke(tagstream, ["train", str(tmp_path), *options])
    assert str(result.exception).startswith(
        f"preset demo with {tmp_path}/mine.toml, table corruption: weight is 'much'"
    )


def test_a_setting_is_judged_together_with_those_of_the_preset(tmp_path: Path) -> None:
    # 1000 is a multiple of the preset's checkpoint_every, as 750 is not.
    (tmp_path / "mine.toml").write_text("eval_every = 750\n")
    options = ["--out", str(tmp_path / "out"), "--preset", "demo", "--config", str(tmp_path / "mine.toml")]
    result = CliRunner().invoke(tagstream, ["train", str(tmp_path), *options])
    assert "eval_every is 750, checkpoint_every 500" in str(result.exception)
