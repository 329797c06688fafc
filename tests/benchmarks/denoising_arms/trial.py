"""One form with one seed: a training, then what is found in clean and spoilt scenes."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from model import Recognizer
from model.training.corruptions import to_crops, to_pixels
from model.training.optimization import learning_rate, make_optimizers
from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.denoising_arms.arms import ARMS, Batch, Step, Student, tokens_of
from tests.benchmarks.denoising_arms.corruptions import CORRUPTIONS
from tests.benchmarks.denoising_arms.scenes import Scenes
from tests.benchmarks.denoising_arms.settings import Schedule, Settings

STRENGTHS = (0.5, 1.0)
_TOP_K, _LABEL_BATCH, _LOG_EVERY = 10, 50, 25
_WEIGHT_DECAY, _CLIP_NORM = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What one trial found: recall of each test scene by condition, as in `conditions`."""

    arm: str
    seed: int
    settings: dict[str, Any]
    train_s: float
    """Of the form's own steps, without the plain ones."""
    cpu_s: float
    recall_1: dict[str, list[float]]
    recall_10: dict[str, list[float]]


def conditions() -> dict[str, tuple[str, float]]:
    """A corruption and its strength by the condition's name; that of clean scenes is the empty one."""
    named = {"clean": ("", 0.0)}
    return named | {f"{name} {strength:g}": (name, strength) for name in CORRUPTIONS for strength in STRENGTHS}


class Training:
    """A recognizer that learns, form by form, from scenes drawn in the same order whatever the form."""

    def __init__(self, recognizer: Recognizer, seed: int, schedule: Schedule) -> None:
        self.recognizer = recognizer
        self.student = Student(recognizer)
        betas = (0.9, 0.999)
        self.optimizers = make_optimizers([self.student], "muon", weight_decay=_WEIGHT_DECAY, betas=betas, eps=1e-8)
        self.seed, self.schedule, self.n_steps = seed, schedule, 0
        self.losses: list[float] = []

    def run(self, arm: str, to_step: int, scenes: Scenes, budget: Budget) -> bool:
        """Trains in this form up to a step; False where the budget ends first."""
        token_ids = [tokens_of(self.recognizer, names) for names in scenes.labels]
        self.recognizer.module.train()
        for step in range(self.n_steps, to_step):
            if not budget.left_s():
                return False
            places = np.random.default_rng([self.seed, step]).integers(len(token_ids), size=self.schedule.views)
            batch = Batch(to_pixels(scenes.crops[places]), [token_ids[place] for place in places])
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
        schedule = self.schedule
        rate = learning_rate(step, peak=schedule.peak_rate, warmup_steps=schedule.warmup_steps, n_steps=schedule.steps)
        nn.utils.clip_grad_norm_(self.student.parameters(), _CLIP_NORM)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def recalls(recognizer: Recognizer, scenes: Scenes, corruption: str, strength: float) -> tuple[list[float], ...]:
    """Recall at 1 and at 10 of each scene, each spoilt the same whatever recognizer looks at it."""
    generator = torch.Generator().manual_seed(0)
    at_1, at_10 = [], []
    for start in range(0, len(scenes.labels), _LABEL_BATCH):
        pixels_BCHW = to_pixels(scenes.crops[start : start + _LABEL_BATCH])
        if corruption:
            pixels_BCHW = CORRUPTIONS[corruption](pixels_BCHW, strength, generator)
        labels = recognizer.label_pixels(recognizer.prepare(to_crops(pixels_BCHW)), _TOP_K)
        for found, truth in zip(labels, scenes.labels[start : start + _LABEL_BATCH], strict=True):
            texts = [label.text for label in found]
            at_1.append(round(len(set(texts[:1]) & set(truth)) / len(truth), 4))
            at_10.append(round(len(set(texts) & set(truth)) / len(truth), 4))
    return at_1, at_10


class Starts(Protocol):
    """Where the trainings of all forms begin."""

    settings: Settings
    scenes: Scenes

    def of_seed(self, seed: int, budget: Budget) -> Training | None: ...


def run_trial(arm: str, seed: int, starts: Starts, test_scenes: Scenes, budget: Budget) -> Trial | None:
    """Trains and measures; None where the budget ends before the training does."""
    training = starts.of_seed(seed, budget)
    started, cpu_started = time.perf_counter(), time.process_time()
    if training is None or not training.run(arm, starts.settings.steps, starts.scenes, budget):
        return None
    seconds = (time.perf_counter() - started, time.process_time() - cpu_started)
    return measure(training.recognizer, arm, seed, starts.settings, test_scenes, seconds)


def measure(
    recognizer: Recognizer,
    arm: str,
    seed: int,
    settings: Settings,
    test_scenes: Scenes,
    seconds: tuple[float, float] = (0.0, 0.0),
) -> Trial:
    """What a recognizer finds in the test scenes.

    Args:
        seconds: that the training took, by the clock and of the CPU.
    """
    found = {name: recalls(recognizer, test_scenes, *condition) for name, condition in conditions().items()}
    at_1 = {name: values[0] for name, values in found.items()}
    at_10 = {name: values[1] for name, values in found.items()}
    return Trial(arm, seed, asdict(settings), round(seconds[0], 1), round(seconds[1], 1), at_1, at_10)


def read_trials(path: Path, settings: Settings) -> list[Trial]:
    """The finished trials of these settings."""
    lines = path.read_text().splitlines() if path.exists() else []
    trials = [Trial(**json.loads(line)) for line in lines]
    return [trial for trial in trials if trial.settings == asdict(settings)]


def add_trial(path: Path, trial: Trial) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(trial)) + "\n")
    print(f"seed {trial.seed}, {trial.arm}: {trial.train_s:.0f} s", file=sys.stderr)
