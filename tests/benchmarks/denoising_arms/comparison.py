"""What the trials say: recall by form and condition, and differences with intervals over seeds and scenes.

Shape suffixes: S seeds, N scenes, R resamplings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from tests.benchmarks.denoising_arms.arms import ARMS, TWICE
from tests.benchmarks.denoising_arms.corruptions import CORRUPTIONS, TRAINED, UNSEEN
from tests.benchmarks.denoising_arms.trial import STRENGTHS, Trial, TrialSettings
from tests.benchmarks.record import markdown_table

BASE = "plain"
AUGMENTED = "augmentation"
_N_RESAMPLED = 10_000
_GROUPS = {
    "clean": ["clean"],
    "corruptions of training": [f"{name} {strength:g}" for name in TRAINED for strength in STRENGTHS],
    "unseen corruptions": [f"{name} {strength:g}" for name in UNSEEN for strength in STRENGTHS],
    "all corruptions": [f"{name} {strength:g}" for name in CORRUPTIONS for strength in STRENGTHS],
}


def scene_recalls(trials: Sequence[Trial], k: int, names: Sequence[str]) -> np.ndarray:
    """Recall at 1 or 10 of each seed's scenes [S, N], the mean over these conditions."""
    recalls = [trial.recall_1 if k == 1 else trial.recall_10 for trial in trials]
    return np.array([np.mean([of_trial[name] for name in names], axis=0) for of_trial in recalls])


def paired_interval(difference_SN: np.ndarray) -> tuple[float, float, float]:
    """Mean difference and its 95 % interval: seeds are drawn with replacement, and scenes, the same in all seeds."""
    n_seeds, n_scenes = difference_SN.shape
    drawn_RS, drawn_RN = resamplings(n_seeds, 0), resamplings(n_scenes, 1)
    low, high = np.quantile(((drawn_RS @ difference_SN) * drawn_RN).sum(axis=1), [0.025, 0.975])
    return float(difference_SN.mean()), float(low), float(high)


@cache
def resamplings(n_things: int, seed: int) -> np.ndarray:
    """The share that each thing has in each of R resamplings with replacement, [R, things]."""
    counts = np.random.default_rng(seed).multinomial(n_things, np.full(n_things, 1 / n_things), _N_RESAMPLED)
    return counts / n_things


def compare(trials: Sequence[Trial], arm: str, base: str, k: int, names: Sequence[str]) -> str:
    """The difference of two forms in points of recall, over the seeds that both have."""
    ours = {trial.seed: trial for trial in trials if trial.arm == arm}
    others = {trial.seed: trial for trial in trials if trial.arm == base}
    seeds = sorted(ours.keys() & others.keys())
    if not seeds or arm == base:
        return ""
    difference_SN = scene_recalls([ours[seed] for seed in seeds], k, names)
    difference_SN = difference_SN - scene_recalls([others[seed] for seed in seeds], k, names)
    mean, low, high = (100 * value for value in paired_interval(difference_SN))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def mean_recall(trials: Sequence[Trial], arm: str, k: int, names: Sequence[str]) -> str:
    of_arm = [trial for trial in trials if trial.arm == arm]
    return f"{scene_recalls(of_arm, k, names).mean():.3f}" if of_arm else ""


def report(where: str, settings: TrialSettings, trials: Sequence[Trial], n_seeds: int) -> str:
    """The comparison as Markdown."""
    arms = [arm for arm in ARMS if any(trial.arm == arm for trial in trials)]
    if not arms:
        return f"# Forms of denoising\n\n{where}\n\nNo training is finished.\n"
    return f"""# Forms of denoising: small recognizers from scratch, clean and spoilt scenes

{where}
- {settings.steps} steps of {settings.views} pictures in every form, the first {settings.plain_steps} of them plain. A
  form of two views (consistency, masked tokens) sees half as many scenes, each twice: steps and compute are the same.
  Guided consistency is augmentation with clean views for a forward pass alone, for a sixth more compute. Forms called
  "twice" see both views of all {settings.views} scenes, for twice the compute, and are set against augmentation with
  as much
- {settings.train_scenes:,} scenes of one or two of {settings.pictograms} pictograms, 48 px, and {settings.test_scenes}
  others for the test; {settings.width} wide, {settings.vision_blocks} + {settings.decoder_blocks} blocks
- strengths: 1 is the strongest that training draws. Haze and pixelation are in no training
- a seed whose plain start learns nothing (it stays at the labels' frequencies) is left out, before any form begins
- differences in points of recall, 95 % intervals: paired bootstrap over seeds and scenes
- {finished(trials, n_seeds)}

## Against plain, and against augmentation alone

{summary(trials, arms)}

## Recall@10 by corruption and strength

{by_condition(trials, arms, 10)}

## Recall@1 by corruption and strength

{by_condition(trials, arms, 1)}
"""


def finished(trials: Sequence[Trial], n_seeds: int) -> str:
    """Which trainings there are, which are missing, and how long a training takes."""
    n_missing = {arm: n_seeds - sum(trial.arm == arm for trial in trials) for arm in ARMS}
    cpu_s = np.mean([trial.cpu_s / (2 if trial.arm in TWICE else 1) for trial in trials])
    seeds = ", ".join(str(seed) for seed in sorted({trial.seed for trial in trials}))
    text = f"{len(trials)} trainings, seeds {seeds}; one takes {cpu_s:.0f} CPU seconds, twice that if it is called so"
    if not any(n_missing.values()):
        return text
    missing_s = cpu_s * sum(n * (2 if arm in TWICE else 1) for arm, n in n_missing.items())
    names = ", ".join(f"{arm} ({n})" for arm, n in n_missing.items() if n)
    return f"{text}.\n  Missing, with the number of seeds: {names}; they take {missing_s / 60:.0f} CPU minutes"


def summary(trials: Sequence[Trial], arms: Sequence[str]) -> str:
    rows = []
    for k in (10, 1):
        for group, names in _GROUPS.items():
            for arm in arms:
                augmented = f"{AUGMENTED}, twice" if arm in TWICE else AUGMENTED
                against = [compare(trials, arm, base, k, names) for base in (BASE, augmented)]
                rows.append([f"recall@{k}, {group}", arm, mean_recall(trials, arm, k, names), *against])
    return markdown_table(["measure", "form", "mean", f"against {BASE}", f"against {AUGMENTED}"], rows)


def by_condition(trials: Sequence[Trial], arms: Sequence[str], k: int) -> str:
    rows = []
    for name in ("clean", *_GROUPS["all corruptions"]):
        cells = []
        for arm in arms:
            difference = compare(trials, arm, BASE, k, [name])
            cells.append(f"{mean_recall(trials, arm, k, [name])} {difference}".strip())
        rows.append([name, *cells])
    return markdown_table(["scenes", *arms], rows)
