"""Whether denoising pays for the model that comes along: it goes on learning in each of three forms.

    python tests/benchmarks/denoising_full.py RESULTS [--seeds 3] [--steps 250] [--budget-minutes 60] [--out FILE]

Composes its scenes itself (Debian: apt install fonts-noto-color-emoji). Each finished training is a line in
RESULTS/trials.jsonl. Those that are there already are not trained again, so a run that was stopped goes on by the same
command. --budget-minutes 0 trains nothing and makes the tables of what is there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.denoising_arms.command import describe, read_options, show
from tests.benchmarks.denoising_arms.comparison import AUGMENTED, BASE, by_condition, finished, goal, summary
from tests.benchmarks.denoising_arms.scenes import cached_scenes, full
from tests.benchmarks.denoising_arms.settings import ShippedSettings
from tests.benchmarks.denoising_arms.starts import FromShipped, shipped
from tests.benchmarks.denoising_arms.trial import Trial, add_trial, measure, read_trials, run_trial

# Of the forms that small recognizers were trained in, these two gained most.
FORMS = (BASE, AUGMENTED, "consistency, guided")
SHIPPED = "as shipped"
# Of scenes that the model has not learned from.
_TRAIN_SEED, _TEST_SEED = 616161, 626262
_SMALL = ShippedSettings(steps=2, views=4, train_scenes=8, test_scenes=6)


def run_missing(folder: Path, settings: ShippedSettings, seeds: Sequence[int], budget: Budget) -> None:
    """Trains what is missing until the budget ends, all forms of a seed before the next."""
    if not budget.left_s():
        return
    path, composition = folder / "trials.jsonl", full(shipped().preprocessor.view)
    train_scenes = cached_scenes(folder, settings.train_scenes, _TRAIN_SEED, composition)
    test_scenes = cached_scenes(folder, settings.test_scenes, _TEST_SEED, composition)
    done = {(trial.arm, trial.seed) for trial in read_trials(path, settings)}
    if (SHIPPED, 0) not in done:
        add_trial(path, measure(shipped(), SHIPPED, 0, settings, test_scenes))
    starts = FromShipped(settings, train_scenes)
    for seed in seeds:
        for form in [form for form in FORMS if (form, seed) not in done]:
            trial = run_trial(form, seed, starts, test_scenes, budget)
            if trial is None:
                return
            add_trial(path, trial)


def report(where: str, settings: ShippedSettings, trials: Sequence[Trial], n_seeds: int) -> str:
    """The comparison as Markdown."""
    trained = [trial for trial in trials if trial.arm != SHIPPED]
    forms = [form for form in FORMS if any(trial.arm == form for trial in trained)]
    if not forms:
        return f"# Denoising the model that comes along\n\n{where}\n\nNo training is finished.\n"
    # The model as it is has no seed: it stands beside every one.
    seeds = sorted({trial.seed for trial in trained})
    as_it_is = [replace(trial, seed=seed) for trial in trials if trial.arm == SHIPPED for seed in seeds]
    both, columns = [*trained, *as_it_is], [*forms, SHIPPED]
    return f"""# Denoising the model that comes along: clean and spoilt scenes

{where}
- the shipped model goes on for {settings.steps} steps of {settings.views} pictures in each form, with the same scenes
  in the same order: everything learns, muon, a learning rate of {settings.peak_rate:g} after {settings.warmup_steps}
  steps, then along half a cosine to zero, float32. Guided consistency computes a sixth more than augmentation
- {settings.train_scenes:,} scenes of the demo corpus (seed {_TRAIN_SEED}), and {settings.test_scenes:,} others for the
  test (seed {_TEST_SEED}), one to six objects, 96 px; the model has learned from neither
- strengths: 1 is the strongest that training draws. Haze and pixelation are in no training
- recall@k: the share of a scene's objects among the first k labels, so that recall@1 of n objects is 1/n at most
- differences in points of recall, 95 % intervals: paired bootstrap over seeds and scenes
- {finished(trained, FORMS, n_seeds)}

## The goal

Points of recall@10 against {BASE}, the same further training without corruptions, and against augmentation.

{goal(both, [form for form in forms if form != BASE])}

## Against plain, augmentation, and the model as it is

{summary(both, columns, (BASE, AUGMENTED, SHIPPED))}

## Recall@10 by corruption and strength

{by_condition(both, columns, 10)}

## Recall@1 by corruption and strength

{by_condition(both, columns, 1)}
"""


def main() -> None:
    options = read_options(__doc__, ShippedSettings().steps)
    settings = _SMALL if options.small else ShippedSettings(steps=options.steps)
    run_missing(options.results, settings, range(options.seeds), Budget(options.budget_minutes * 60))
    trials = read_trials(options.results / "trials.jsonl", settings)
    show(report(describe("denoising_full", options), settings, trials, options.seeds), options.out)


if __name__ == "__main__":
    main()
