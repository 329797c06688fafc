"""One training, and the recall of what it leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.denoising_arms.scenes import SMALL_PX, Scenes
from tests.benchmarks.denoising_arms.settings import ScratchSettings
from tests.benchmarks.denoising_arms.starts import FromScratch, build
from tests.benchmarks.denoising_arms.trial import Trial, add_trial, conditions, read_trials, recalls, run_trial

SETTINGS = ScratchSettings(steps=4, plain_steps=2, views=4, width=32, vision_blocks=1, patch_px=16, vocab_size=300)


@pytest.fixture(scope="module")
def scenes(make_scenes) -> Scenes:
    return make_scenes(SMALL_PX)


def test_a_training_that_the_budget_ends_leaves_no_trial(scenes: Scenes) -> None:
    assert run_trial("plain", 0, FromScratch(SETTINGS, scenes), scenes, Budget(0)) is None


def test_a_trial_has_the_recall_of_every_scene_under_every_condition(scenes: Scenes) -> None:
    trial = run_trial("masked tokens", 1, FromScratch(SETTINGS, scenes), scenes, Budget(1000))
    assert trial.recall_1.keys() == trial.recall_10.keys() == conditions().keys()
    assert {len(values) for values in trial.recall_10.values()} == {len(scenes.labels)}
    assert (trial.arm, trial.seed, trial.settings["steps"]) == ("masked tokens", 1, 4)


def test_recall_counts_the_scenes_objects_among_the_labels(scenes: Scenes) -> None:
    """The oracle asks the recognizer for the labels of each scene by itself."""
    recognizer = build(SETTINGS, scenes.labels, 0)
    recognizer.module.eval()
    at_1, at_10 = recalls(recognizer, scenes, "", 0.0)
    for number, truth in enumerate(scenes.labels):
        (labels,) = recognizer.label_pixels(recognizer.prepare([scenes.crops[number]]), 10)
        texts = [label.text for label in labels]
        assert at_1[number] == sum(name in texts[:1] for name in truth) / 2
        assert at_10[number] == sum(name in texts for name in truth) / 2


def test_only_trials_of_the_same_settings_are_read(tmp_path) -> None:
    path = tmp_path / "trials.jsonl"
    assert read_trials(path, SETTINGS) == []
    recall = {"clean": [0.5, 1.0]}
    trial = Trial("plain", 0, {}, 1.0, 1.0, recall, recall)
    for steps in (4, 5):
        of_steps = replace(SETTINGS, steps=steps)
        add_trial(path, replace(trial, settings={name: getattr(of_steps, name) for name in of_steps.__slots__}))
    (found,) = read_trials(path, SETTINGS)
    assert (found.settings["steps"], found.recall_10) == (4, recall)
