"""One form with one seed: trained from scratch, then asked about clean and spoilt scenes."""

from __future__ import annotations

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
_TOP_K, _LABEL_BATCH, _LOG_EVERY = 10, 50, 25
_PEAK_RATE, _WEIGHT_DECAY, _CLIP_NORM = 6e-3, 0.05, 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSettings:
    """What all trials of a comparison share; results of other settings are not comparable."""

    steps: int = 300
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


def train(arm: str, seed: int, settings: TrialSettings, scenes: SmallScenes, budget: Budget) -> Recognizer | None:
    """A recognizer trained in this form; None where the budget ends first.

    All forms of a seed start from the same weights and draw the same scenes in the same order.
    """
    recognizer = build(settings, scenes.labels, seed)
    student = Student(recognizer)
    optimizers = make_optimizers([student], "muon", weight_decay=_WEIGHT_DECAY, betas=(0.9, 0.999), eps=1e-8)
    step_of_arm = Step(recognizer, student, torch.Generator().manual_seed(seed))
    token_ids = [tokens_of(recognizer, names) for names in scenes.labels]
    rng = np.random.default_rng([seed, 1])
    recognizer.module.train()
    for step in range(settings.steps):
        if not budget.left_s():
            return None
        rate = learning_rate(step, peak=_PEAK_RATE, warmup_steps=settings.steps // 20, n_steps=settings.steps)
        places = rng.integers(len(token_ids), size=settings.views)
        batch = Batch(pixels_of(scenes.crops[places]), [token_ids[place] for place in places])
        # The CPU's fused attention is slow backwards.
        with sdpa_kernel(SDPBackend.MATH):
            loss = ARMS[arm](step_of_arm, batch)
            loss.backward()
        if step % _LOG_EVERY == 0:
            print(f"seed {seed}, {arm}, step {step}: loss {loss.item():.3f}", file=sys.stderr)
        nn.utils.clip_grad_norm_(student.parameters(), _CLIP_NORM)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    recognizer.module.eval()
    return recognizer


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


def run_trial(
    arm: str, seed: int, settings: TrialSettings, train_scenes: SmallScenes, test_scenes: SmallScenes, budget: Budget
) -> Trial | None:
    """Trains and measures; None where the budget ends before the training does."""
    started, cpu_started = time.perf_counter(), time.process_time()
    recognizer = train(arm, seed, settings, train_scenes, budget)
    if recognizer is None:
        return None
    train_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    found = {name: recalls(recognizer, test_scenes, *condition) for name, condition in conditions().items()}
    at_1 = {name: values[0] for name, values in found.items()}
    at_10 = {name: values[1] for name, values in found.items()}
    return Trial(arm, seed, asdict(settings), round(train_s, 1), round(cpu_s, 1), at_1, at_10)
