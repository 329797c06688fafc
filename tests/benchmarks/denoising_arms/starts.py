"""What the forms of a seed begin with: a small recognizer that has learned plain so far, or the shipped model."""

from __future__ import annotations

import copy
import statistics

import torch

from model import Recognizer
from model.training.from_scratch import new_recognizer, train_tokenizer
from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.denoising_arms.scenes import SMALL_PX, Scenes
from tests.benchmarks.denoising_arms.settings import ScratchSettings, ShippedSettings
from tests.benchmarks.denoising_arms.trial import Training

# A recognizer that knows no more than how frequent labels are has 1.7.
LEARNS_BELOW = 1.6
_JUDGED_STEPS = 25


class FromScratch:
    """A training that has been plain so far, kept for the next form."""

    def __init__(self, settings: ScratchSettings, scenes: Scenes, learns_below: float = LEARNS_BELOW) -> None:
        self.settings, self.scenes, self._learns_below = settings, scenes, learns_below
        self._last: Training | None = None

    def of_seed(self, seed: int, budget: Budget) -> Training | None:
        """A copy to go on with; None where the budget ends first."""
        if self._last is None or self._last.seed != seed:
            recognizer = build(self.settings, self.scenes.labels, seed)
            training = Training(recognizer, seed, self.settings.schedule)
            if not training.run("plain", self.settings.plain_steps, self.scenes, budget):
                return None
            self._last = training
        return copy.deepcopy(self._last)

    def learns(self, seed: int, budget: Budget) -> bool:
        """Whether the plain start has found the image; False where the budget ends first.

        Some starts stay at the labels' frequencies for good, and tell nothing about any form.
        """
        start = self.of_seed(seed, budget)
        return start is not None and statistics.mean(start.losses[-_JUDGED_STEPS:]) < self._learns_below


class FromShipped:
    """The model that comes along, before its first further step. Seeds differ in the order of scenes and in draws."""

    def __init__(self, settings: ShippedSettings, scenes: Scenes) -> None:
        self.settings, self.scenes = settings, scenes

    def of_seed(self, seed: int, budget: Budget) -> Training | None:
        """A training of its own; None where the budget has ended."""
        torch.manual_seed(seed)
        return Training(shipped(), seed, self.settings.schedule) if budget.left_s() else None


def build(settings: ScratchSettings, labels: list[list[str]], seed: int) -> Recognizer:
    tokenizer = train_tokenizer((label for of_scene in labels for label in of_scene), settings.vocab_size)
    return new_recognizer(
        tokenizer=tokenizer,
        image_size=SMALL_PX,
        patch_size=settings.patch_px,
        vision_width=settings.width,
        vision_blocks=settings.vision_blocks,
        vision_heads=settings.width // 32,
        decoder_width=settings.width,
        decoder_blocks=settings.decoder_blocks,
        decoder_heads=settings.width // 32,
        seed=seed,
    )


def shipped() -> Recognizer:
    return Recognizer.from_pretrained("demo", device="cpu", dtype="float32")
