"""Trainings that fork behind a plain start, and the recall of what they leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.denoising_arms.small_scenes import SIDE_PX, SmallScenes
from tests.benchmarks.denoising_arms.trial import Starts, Training, TrialSettings, conditions, recalls, run_trial

SETTINGS = TrialSettings(steps=4, plain_steps=2, views=4, width=32, vision_blocks=1, patch_px=16, vocab_size=300)
NAMES = ["tiger", "cat", "stop sign", "whale"]


@pytest.fixture(scope="module")
def scenes() -> SmallScenes:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (8, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    return SmallScenes(crops, [[NAMES[number % 4], NAMES[(number + 1) % 4]] for number in range(8)])


def weights(training: Training) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in training.recognizer.module.parameters()])


def no_hurry() -> Budget:
    return Budget(1000)


def test_a_form_that_begins_with_a_copy_ends_as_one_that_was_never_stopped(scenes: SmallScenes) -> None:
    starts = Starts(SETTINGS, scenes)
    forked = starts.of_seed(3, no_hurry())
    forked.run("consistency", SETTINGS.steps, scenes, no_hurry())
    # Another form in between leaves the start as it was.
    other = starts.of_seed(3, no_hurry())
    other.run("augmentation", SETTINGS.steps, scenes, no_hurry())
    again = starts.of_seed(3, no_hurry())
    again.run("consistency", SETTINGS.steps, scenes, no_hurry())
    whole = Training(3, SETTINGS, scenes)
    whole.run("plain", SETTINGS.plain_steps, scenes, no_hurry())
    whole.run("consistency", SETTINGS.steps, scenes, no_hurry())
    assert torch.equal(weights(forked), weights(whole))
    assert torch.equal(weights(forked), weights(again))
    assert not torch.equal(weights(forked), weights(other))


def test_a_start_learns_where_its_last_losses_are_low(scenes: SmallScenes) -> None:
    losses = Starts(SETTINGS, scenes).of_seed(0, no_hurry()).losses
    assert len(losses) == SETTINGS.plain_steps
    mean = sum(losses) / len(losses)
    assert Starts(SETTINGS, scenes, learns_below=mean + 0.01).learns(0, no_hurry())
    assert not Starts(SETTINGS, scenes, learns_below=mean - 0.01).learns(0, no_hurry())


def test_a_training_that_the_budget_ends_leaves_no_trial(scenes: SmallScenes) -> None:
    assert run_trial("plain", 0, Starts(SETTINGS, scenes), scenes, Budget(0)) is None


def test_a_trial_has_the_recall_of_every_scene_under_every_condition(scenes: SmallScenes) -> None:
    trial = run_trial("masked tokens", 1, Starts(SETTINGS, scenes), scenes, no_hurry())
    assert trial.recall_1.keys() == trial.recall_10.keys() == conditions().keys()
    assert {len(values) for values in trial.recall_10.values()} == {len(scenes.labels)}
    assert (trial.arm, trial.seed, trial.settings["steps"]) == ("masked tokens", 1, 4)


def test_recall_counts_the_scenes_objects_among_the_labels(scenes: SmallScenes) -> None:
    """The oracle asks the recognizer for the labels of each scene by itself."""
    recognizer = Training(0, SETTINGS, scenes).recognizer
    at_1, at_10 = recalls(recognizer, scenes, "", 0.0)
    for number, truth in enumerate(scenes.labels):
        (labels,) = recognizer.label_pixels(recognizer.prepare([scenes.crops[number]]), 10)
        texts = [label.text for label in labels]
        assert at_1[number] == sum(name in texts[:1] for name in truth) / 2
        assert at_10[number] == sum(name in texts for name in truth) / 2
