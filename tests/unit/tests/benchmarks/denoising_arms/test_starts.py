"""Trainings that fork behind a plain start, or behind the model that comes along."""

from __future__ import annotations

import pytest
import torch

from model import Recognizer
from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.denoising_arms.scenes import SMALL_PX, Scenes
from tests.benchmarks.denoising_arms.settings import ScratchSettings, ShippedSettings
from tests.benchmarks.denoising_arms.starts import FromScratch, FromShipped, build, shipped
from tests.benchmarks.denoising_arms.trial import Training

SETTINGS = ScratchSettings(steps=4, plain_steps=2, views=4, width=32, vision_blocks=1, patch_px=16, vocab_size=300)


@pytest.fixture(scope="module")
def scenes(make_scenes) -> Scenes:
    return make_scenes(SMALL_PX)


def weights(recognizer: Recognizer) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in recognizer.module.parameters()])


def no_hurry() -> Budget:
    return Budget(1000)


class TestFromScratch:
    def test_a_form_that_begins_with_a_copy_ends_as_one_that_was_never_stopped(self, scenes: Scenes) -> None:
        starts = FromScratch(SETTINGS, scenes)
        forked = starts.of_seed(3, no_hurry())
        forked.run("consistency", SETTINGS.steps, scenes, no_hurry())
        # Another form in between leaves the start as it was.
        other = starts.of_seed(3, no_hurry())
        other.run("augmentation", SETTINGS.steps, scenes, no_hurry())
        again = starts.of_seed(3, no_hurry())
        again.run("consistency", SETTINGS.steps, scenes, no_hurry())
        whole = Training(build(SETTINGS, scenes.labels, 3), 3, SETTINGS.schedule)
        whole.run("plain", SETTINGS.plain_steps, scenes, no_hurry())
        whole.run("consistency", SETTINGS.steps, scenes, no_hurry())
        assert torch.equal(weights(forked.recognizer), weights(whole.recognizer))
        assert torch.equal(weights(forked.recognizer), weights(again.recognizer))
        assert not torch.equal(weights(forked.recognizer), weights(other.recognizer))

    def test_a_start_learns_where_its_last_losses_are_low(self, scenes: Scenes) -> None:
        losses = FromScratch(SETTINGS, scenes).of_seed(0, no_hurry()).losses
        assert len(losses) == SETTINGS.plain_steps
        mean = sum(losses) / len(losses)
        assert FromScratch(SETTINGS, scenes, learns_below=mean + 0.01).learns(0, no_hurry())
        assert not FromScratch(SETTINGS, scenes, learns_below=mean - 0.01).learns(0, no_hurry())


class TestFromShipped:
    settings = ShippedSettings(steps=2, views=4)

    def test_every_form_begins_with_the_shipped_weights_whatever_another_has_learned(self, make_scenes) -> None:
        scenes = make_scenes(96)
        starts = FromShipped(self.settings, scenes)
        first = starts.of_seed(0, no_hurry())
        first.run("augmentation", self.settings.steps, scenes, no_hurry())
        second = starts.of_seed(0, no_hurry())
        assert torch.equal(weights(second.recognizer), weights(shipped()))
        is_moved = weights(first.recognizer) != weights(second.recognizer)
        assert is_moved.float().mean() > 0.5

    def test_there_is_no_training_where_the_budget_has_ended(self, scenes: Scenes) -> None:
        assert FromShipped(self.settings, scenes).of_seed(0, Budget(0)) is None
