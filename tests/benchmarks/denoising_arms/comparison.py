"""What the trials say: recall by form and condition, and differences with intervals over seeds and scenes.

Shape suffixes: S seeds, N scenes, R resamplings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from tests.benchmarks.denoising_arms.arms import ARMS, TWICE
from tests.benchmarks.denoising_arms.corruptions import CORRUPTIONS, TRAINED, UNSEEN
from tests.benchmarks.denoising_arms.settings import ScratchSettings
from tests.benchmarks.denoising_arms.trial import STRENGTHS, Trial
from tests.benchmarks.record import markdown_table

BASE = "plain"
AUGMENTED = "augmentation"
_N_RESAMPLED = 10_000
# The goal, in points of recall@10 against plain: gained over all corruptions, and lost at most on clean scenes.
_GAIN, _COST = 5.0, 0.5
_CLEAN, _ALL = "clean", "all corruptions"
_GROUPS = {
    _CLEAN: [_CLEAN],
    "corruptions of training": [f"{name} {strength:g}" for name in TRAINED for strength in STRENGTHS],
    "unseen corruptions": [f"{name} {strength:g}" for name in UNSEEN for strength in STRENGTHS],
    _ALL: [f"{name} {strength:g}" for name in CORRUPTIONS for strength in STRENGTHS],
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


def difference(
    trials: Sequence[Trial], arm: str, base: str, k: int, names: Sequence[str]
) -> tuple[float, float, float] | None:
    """The difference of two forms in points of recall with its interval, over the seeds that both have, if any."""
    ours = {trial.seed: trial for trial in trials if trial.arm == arm}
    others = {trial.seed: trial for trial in trials if trial.arm == base}
    seeds = sorted(ours.keys() & others.keys())
    if not seeds or arm == base:
        return None
    difference_SN = scene_recalls([ours[seed] for seed in seeds], k, names)
    difference_SN = difference_SN - scene_recalls([others[seed] for seed in seeds], k, names)
    mean, low, high = paired_interval(100 * difference_SN)
    return mean, low, high


def compare(trials: Sequence[Trial], arm: str, base: str, k: int, names: Sequence[str]) -> str:
    """The difference of two forms as a cell of a table; empty without a common seed."""
    return _cell(difference(trials, arm, base, k, names))


def _cell(points: tuple[float, float, float] | None) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*points) if points else ""


def _judged(points: tuple[float, float, float], is_reached: bool) -> str:
    return f"{_cell(points)} {'yes' if is_reached else 'no'}"


def mean_recall(trials: Sequence[Trial], arm: str, k: int, names: Sequence[str]) -> str:
    of_arm = [trial for trial in trials if trial.arm == arm]
    return f"{scene_recalls(of_arm, k, names).mean():.3f}" if of_arm else ""


def report(where: str, settings: ScratchSettings, trials: Sequence[Trial], n_seeds: int) -> str:
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
- {finished(trials, list(ARMS), n_seeds)}

## The goal

Points of recall@10 against plain, and against augmentation.

{goal(trials, [arm for arm in arms if arm != BASE])}

## Against plain, and against augmentation alone

{summary(trials, arms)}

## Recall@10 by corruption and strength

{by_condition(trials, arms, 10)}

## Recall@1 by corruption and strength

{by_condition(trials, arms, 1)}
"""


def finished(trials: Sequence[Trial], arms: Sequence[str], n_seeds: int) -> str:
    """Which trainings there are, which are missing, and how long a training takes."""
    n_missing = {arm: n_seeds - sum(trial.arm == arm for trial in trials) for arm in arms}
    cpu_s = np.mean([trial.cpu_s / (2 if trial.arm in TWICE else 1) for trial in trials])
    seeds = ", ".join(str(seed) for seed in sorted({trial.seed for trial in trials}))
    text = f"{len(trials)} trainings, seeds {seeds}; one takes {cpu_s:.0f} CPU seconds"
    if TWICE.keys() & set(arms):
        text += ", twice that if it is called so"
    if not any(n_missing.values()):
        return text
    missing_s = cpu_s * sum(n * (2 if arm in TWICE else 1) for arm, n in n_missing.items())
    names = ", ".join(f"{arm} ({n})" for arm, n in n_missing.items() if n)
    return f"{text}.\n  Missing, with the number of seeds: {names}; they take {missing_s / 60:.0f} CPU minutes"


def summary(trials: Sequence[Trial], arms: Sequence[str], bases: Sequence[str] = (BASE, AUGMENTED)) -> str:
    rows = []
    for k in (10, 1):
        for group, names in _GROUPS.items():
            for arm in arms:
                against = [compare(trials, arm, _as_much(base, arm), k, names) for base in bases]
                rows.append([f"recall@{k}, {group}", arm, mean_recall(trials, arm, k, names), *against])
    return markdown_table(["measure", "form", "mean", *(f"against {base}" for base in bases)], rows)


def _as_much(base: str, arm: str) -> str:
    """The form to set another against: augmentation of as much compute."""
    return f"{AUGMENTED}, twice" if base == AUGMENTED and arm in TWICE else base


def goal(trials: Sequence[Trial], arms: Sequence[str]) -> str:
    """How each form stands to the goal, in points of recall@10."""
    spoilt, clean = _GROUPS[_ALL], _GROUPS[_CLEAN]
    rows = []
    for arm in arms:
        gain = difference(trials, arm, BASE, 10, spoilt)
        cost = difference(trials, arm, BASE, 10, clean)
        lead = difference(trials, arm, _as_much(AUGMENTED, arm), 10, spoilt)
        if gain and cost:
            cells = [_judged(gain, gain[0] >= _GAIN), _judged(cost, cost[0] >= -_COST)]
            rows.append([arm, *cells, _judged(lead, lead[1] > 0) if lead else ""])
    header = [f"all corruptions, at least {_GAIN:+.1f}", f"clean, at least {-_COST:+.1f}", f"better than {AUGMENTED}"]
    return markdown_table(["form", *header], rows)


def by_condition(trials: Sequence[Trial], arms: Sequence[str], k: int) -> str:
    rows = []
    for name in (_CLEAN, *_GROUPS[_ALL]):
        cells = []
        for arm in arms:
            cells.append(f"{mean_recall(trials, arm, k, [name])} {compare(trials, arm, BASE, k, [name])}".strip())
        rows.append([name, *cells])
    return markdown_table(["scenes", *arms], rows)
