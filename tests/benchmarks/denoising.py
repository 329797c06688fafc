"""Which form of denoising pays: small recognizers, each trained from scratch, on clean and on spoilt scenes.

    python tests/benchmarks/denoising.py RESULTS [--seeds 3] [--steps 500] [--budget-minutes 60] [--out FILE]

Composes its scenes itself (Debian: apt install fonts-noto-color-emoji). Each finished training is a line in
RESULTS/trials.jsonl. Those that are there already are not trained again, so a run that was stopped goes on by the same
command. --budget-minutes 0 trains nothing and makes the table of what is there.
"""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.denoising_arms.arms import EQUAL, TWICE
from tests.benchmarks.denoising_arms.command import describe, read_options, show
from tests.benchmarks.denoising_arms.comparison import report
from tests.benchmarks.denoising_arms.scenes import cached_scenes, small
from tests.benchmarks.denoising_arms.settings import ScratchSettings
from tests.benchmarks.denoising_arms.starts import LEARNS_BELOW, FromScratch
from tests.benchmarks.denoising_arms.trial import add_trial, read_trials, run_trial

_TRAIN_SEED, _TEST_SEED = 1, 2
_SMALL = ScratchSettings(steps=4, plain_steps=2, views=8, train_scenes=40, test_scenes=12, pictograms=12, width=32)


def run_missing(folder: Path, settings: ScratchSettings, n_seeds: int, learns_below: float, budget: Budget) -> None:
    """Trains what is missing until the budget ends: the forms of equal compute first, all of a seed before the next."""
    if not budget.left_s():
        return
    composition = small(settings.pictograms)
    train_scenes = cached_scenes(folder, settings.train_scenes, _TRAIN_SEED, composition)
    starts = FromScratch(settings, train_scenes, learns_below)
    test_scenes = cached_scenes(folder, settings.test_scenes, _TEST_SEED, composition)
    path = folder / "trials.jsonl"
    done = {(trial.arm, trial.seed) for trial in read_trials(path, settings)}
    seeds: list[int] = []
    for arms, place in itertools.product((EQUAL, TWICE), range(n_seeds)):
        if place == len(seeds):
            seeds.append(next_seed(starts, seeds[-1] + 1 if seeds else 0, {seed for _, seed in done}, budget))
        for arm in [arm for arm in arms if (arm, seeds[place]) not in done]:
            trial = run_trial(arm, seeds[place], starts, test_scenes, budget)
            if trial is None:
                return
            add_trial(path, trial)


def next_seed(starts: FromScratch, first: int, known: set[int], budget: Budget) -> int:
    """The first seed from `first` on whose plain start learns; any where the budget ends first."""
    seed = first
    while seed not in known and budget.left_s() and not starts.learns(seed, budget):
        print(f"seed {seed} is left out: its plain start learns nothing", file=sys.stderr)
        seed += 1
    return seed


def main() -> None:
    options = read_options(__doc__, ScratchSettings().steps)
    settings = _SMALL if options.small else ScratchSettings(steps=options.steps)
    learns_below = math.inf if options.small else LEARNS_BELOW
    run_missing(options.results, settings, options.seeds, learns_below, Budget(options.budget_minutes * 60))
    trials = read_trials(options.results / "trials.jsonl", settings)
    show(report(describe("denoising", options), settings, trials, options.seeds), options.out)


if __name__ == "__main__":
    main()
