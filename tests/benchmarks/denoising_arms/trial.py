"""One form with one seed: trained from scratch, then asked about clean and spoilt scenes."""

from __future__ import annotations

import copy
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from model import Recognizer
from model.training.from_scratch import new_recognizer, train_tokenizer
from model.training.optimization import learning_rate, make_optimizers
from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.denoising_arms.arms import ARMS, Batch, Step, Student, pixels_of, tokens_of
from tests.benchmarks.denoising_arms.corruptions import CORRUPTIONS, to_crops
from tests.benchmarks.denoising_arms.small_scenes import SIDE_PX, SmallScenes

STRENGTHS = (0.5, 1.0)
# A recognizer that knows no more than how frequent labels are has 1.7.
LEARNS_BELOW = 1.6
_TOP_K, _LABEL_BATCH, _LOG_EVERY = 10, 50, 25
_PEAK_RATE, _WEIGHT_DECAY, _CLIP_NORM, _WARMUP_STEPS = 6e-3, 0.05, 1.0, 15


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSettings:
    """What all trials of a comparison share; results of other settings are not comparable."""

    steps: int = 500
    plain_steps: int = 150
    """The first steps, which every form takes plain: a recognizer that sees nothing yet has nothing to denoise."""
    views: int = 64
    """Pictures a step, whatever the form."""
    train_scenes: int = 6000
    test_scenes: int = 300
    pictograms: int = 40
    vocab_size: int = 1024
    patch_px: int = 8
    width: int = 96
    vision_blocks: int = 2
    decoder_blocks: int = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """What one trial found: recall of each test scene by condition, as in `conditions`."""

    arm: str
    seed: int
    settings: dict[str, int]
    train_s: float
    """Of the form's own steps, without the plain ones."""
    cpu_s: float
    recall_1: dict[str, list[float]]
    recall_10: dict[str, list[float]]


def conditions() -> dict[str, tuple[str, float]]:
    """A corruption and its strength by the condition's name; that of clean scenes is the empty one."""
    named = {"clean": ("", 0.0)}
    return named | {f"{name} {strength:g}": (name, strength) for name in CORRUPTIONS for strength in STRENGTHS}


def build(settings: TrialSettings, labels: list[list[str]], seed: int) -> Recognizer:
    tokenizer = train_tokenizer((label for of_scene in labels for label in of_scene), settings.vocab_size)
    return new_recognizer(
        tokenizer=tokenizer,
        image_size=SIDE_PX,
        patch_size=settings.patch_px,
        vision_width=settings.width,
        vision_blocks=settings.vision_blocks,
        vision_heads=settings.width // 32,
        decoder_width=settings.width,
        decoder_blocks=settings.decoder_blocks,
        decoder_heads=settings.width // 32,
        seed=seed,
    )


class Training:
    """A recognizer that learns, form by form, from scenes drawn in the same order whatever the form."""

    def __init__(self, seed: int, settings: TrialSettings, scenes: SmallScenes) -> None:
        self.recognizer = build(settings, scenes.labels, seed)
        self.student = Student(self.recognizer)
        betas = (0.9, 0.999)
        self.optimizers = make_optimizers([self.student], "muon", weight_decay=_WEIGHT_DECAY, betas=betas, eps=1e-8)
        self.seed, self.settings, self.n_steps = seed, settings, 0
        self.losses: list[float] = []

    def run(self, arm: str, to_step: int, scenes: SmallScenes, budget: Budget) -> bool:
        """Trains in this form up to a step; False where the budget ends first."""
        token_ids = [tokens_of(self.recognizer, names) for names in scenes.labels]
        self.recognizer.module.train()
        for step in range(self.n_steps, to_step):
            if not budget.left_s():
                return False
            places = np.random.default_rng([self.seed, step]).integers(len(token_ids), size=self.settings.views)
            batch = Batch(pixels_of(scenes.crops[places]), [token_ids[place] for place in places])
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            # The CPU's fused attention is slow backwards.
            with sdpa_kernel(SDPBackend.MATH):
                loss = ARMS[arm](Step(self.recognizer, self.student, generator), batch)
                loss.backward()
            self._update(step)
            self.losses.append(loss.item())
            if step % _LOG_EVERY == 0:
                print(f"seed {self.seed}, {arm}, step {step}: loss {loss.item():.3f}", file=sys.stderr)
        self.n_steps = to_step
        self.recognizer.module.eval()
        return True

    def _update(self, step: int) -> None:
        n_steps = self.settings.steps
        rate = learning_rate(step, peak=_PEAK_RATE, warmup_steps=_WARMUP_STEPS, n_steps=n_steps)
        nn.utils.clip_grad_norm_(self.student.parameters(), _CLIP_NORM)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


class Starts:
    """What the forms of a seed begin with: a training that has been plain so far, kept for the next form."""

    def __init__(self, settings: TrialSettings, scenes: SmallScenes, learns_below: float = LEARNS_BELOW) -> None:
        self.settings, self.scenes, self._learns_below = settings, scenes, learns_below
        self._last: Training | None = None

    def of_seed(self, seed: int, budget: Budget) -> Training | None:
        """A copy to go on with; None where the budget ends first."""
        if self._last is None or self._last.seed != seed:
            training = Training(seed, self.settings, self.scenes)
            if not training.run("plain", self.settings.plain_steps, self.scenes, budget):
                return None
            self._last = training
        return copy.deepcopy(self._last)

    def learns(self, seed: int, budget: Budget) -> bool:
        """Whether the plain start has found the image; False where the budget ends first.

        Some starts stay at the labels' frequencies for good, and tell nothing about any form.
        """
        start = self.of_seed(seed, budget)
        return start is not None and statistics.mean(start.losses[-_LOG_EVERY:]) < self._learns_below


def recalls(recognizer: Recognizer, scenes: SmallScenes, corruption: str, strength: float) -> tuple[list[float], ...]:
    """Recall at 1 and at 10 of each scene, each spoilt the same whatever recognizer looks at it."""
    generator = torch.Generator().manual_seed(0)
    at_1, at_10 = [], []
    for start in range(0, len(scenes.labels), _LABEL_BATCH):
        pixels_BCHW = pixels_of(scenes.crops[start : start + _LABEL_BATCH])
        if corruption:
            pixels_BCHW = CORRUPTIONS[corruption](pixels_BCHW, strength, generator)
        labels = recognizer.label_pixels(recognizer.prepare(to_crops(pixels_BCHW)), _TOP_K)
        for found, truth in zip(labels, scenes.labels[start : start + _LABEL_BATCH], strict=True):
            texts = [label.text for label in found]
            at_1.append(round(len(set(texts[:1]) & set(truth)) / len(truth), 4))
            at_10.append(round(len(set(texts) & set(truth)) / len(truth), 4))
    return at_1, at_10


def run_trial(arm: str, seed: int, starts: Starts, test_scenes: SmallScenes, budget: Budget) -> Trial | None:
    """Trains and measures; None where the budget ends before the training does."""
    training = starts.of_seed(seed, budget)
    started, cpu_started = time.perf_counter(), time.process_time()
    if training is None or not training.run(arm, starts.settings.steps, starts.scenes, budget):
        return None
    train_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    found = {name: recalls(training.recognizer, test_scenes, *condition) for name, condition in conditions().items()}
    at_1 = {name: values[0] for name, values in found.items()}
    at_10 = {name: values[1] for name, values in found.items()}
    return Trial(arm, seed, asdict(starts.settings), round(train_s, 1), round(cpu_s, 1), at_1, at_10)
