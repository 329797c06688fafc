"""Differences between forms, with intervals over seeds and scenes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.benchmarks.denoising_arms.arms import ARMS
from tests.benchmarks.denoising_arms.comparison import compare, finished, goal, paired_interval, report
from tests.benchmarks.denoising_arms.settings import ScratchSettings
from tests.benchmarks.denoising_arms.trial import Trial, conditions


def trial(arm: str, seed: int, recall: float, n_scenes: int = 20) -> Trial:
    """One whose recall at 10 is the same on all scenes, and at 1 half of it."""
    at_10 = {name: [recall] * n_scenes for name in conditions()}
    at_1 = {name: [recall / 2] * n_scenes for name in conditions()}
    return Trial(arm, seed, {}, 10.0, 6.0, at_1, at_10)


class TestInterval:
    def test_it_has_no_width_where_all_seeds_and_scenes_agree(self) -> None:
        assert paired_interval(np.full((3, 10), 0.25)) == (pytest.approx(0.25),) * 3

    def test_it_is_the_normal_one_where_only_scenes_differ(self) -> None:
        difference = np.random.default_rng(1).normal(0.1, 1.0, 1000)
        mean, low, high = paired_interval(np.stack([difference] * 3))
        margin = 1.96 * difference.std() / np.sqrt(len(difference))
        assert (mean - low, high - mean) == (pytest.approx(margin, rel=0.1), pytest.approx(margin, rel=0.1))

    def test_seeds_that_disagree_widen_it_to_their_whole_range(self) -> None:
        """Three seeds drawn three times are all the lowest once in 27, more often than once in 40."""
        _, low, high = paired_interval(np.repeat([[0.0], [0.1], [0.2]], 50, axis=1))
        assert (low, high) == (pytest.approx(0.0, abs=1e-9), pytest.approx(0.2, abs=1e-9))


class TestCompare:
    def test_only_seeds_that_both_have_count(self) -> None:
        trials = [trial("plain", 0, 0.5), trial("consistency", 0, 0.6), trial("consistency", 1, 0.0)]
        assert compare(trials, "consistency", "plain", 10, ["clean"]) == "+10.0 [+10.0, +10.0]"
        assert compare(trials, "consistency", "plain", 1, ["clean"]) == "+5.0 [+5.0, +5.0]"

    def test_there_is_none_without_a_common_seed_or_with_itself(self) -> None:
        trials = [trial("plain", 0, 0.5), trial("consistency", 1, 0.6)]
        assert compare(trials, "consistency", "plain", 10, ["clean"]) == ""
        assert compare(trials, "plain", "plain", 10, ["clean"]) == ""


class TestGoal:
    def spoilt_and_clean(self, arm: str, spoilt: float, clean: float) -> Trial:
        of_arm = trial(arm, 0, spoilt)
        return replace(of_arm, recall_10=of_arm.recall_10 | {"clean": [clean] * 20})

    def test_each_part_is_judged_by_itself(self) -> None:
        trials = [
            self.spoilt_and_clean("plain", 0.5, 0.9),
            self.spoilt_and_clean("augmentation", 0.56, 0.896),
            self.spoilt_and_clean("consistency, guided", 0.57, 0.89),
            self.spoilt_and_clean("masked tokens", 0.54, 0.9),
        ]
        *_, augmented, guided, masked = goal(
            trials, ["augmentation", "consistency, guided", "masked tokens"]
        ).splitlines()
        assert augmented == "| augmentation | +6.0 [+6.0, +6.0] yes | -0.4 [-0.4, -0.4] yes |  |"
        assert guided.endswith("| +7.0 [+7.0, +7.0] yes | -1.0 [-1.0, -1.0] no | +1.0 [+1.0, +1.0] yes |")
        assert masked.endswith("| +4.0 [+4.0, +4.0] no | +0.0 [+0.0, +0.0] yes | -2.0 [-2.0, -2.0] no |")


class TestReport:
    def test_it_names_the_missing_trainings_and_their_time(self) -> None:
        text = finished([trial("plain", 0, 0.5), trial("plain", 1, 0.5)], list(ARMS), 2)
        assert text.startswith("2 trainings, seeds 0, 1; one takes 6 CPU seconds, ")
        missing = text.partition("Missing")[2]
        assert "consistency (2)" in missing
        assert "plain" not in missing
        # Five forms once and three twice, of two seeds.
        assert text.endswith("they take 2 CPU minutes")

    def test_twice_the_compute_is_told_where_a_form_has_it(self) -> None:
        trials = [trial("plain", 0, 0.5)]
        assert finished(trials, ["plain", "augmentation, twice"], 1).startswith(
            "1 trainings, seeds 0; one takes 6 CPU seconds, twice that if it is called so.\n"
        )
        assert finished(trials, ["plain"], 1) == "1 trainings, seeds 0; one takes 6 CPU seconds"

    def test_nothing_is_missing_where_all_are_there(self) -> None:
        assert "Missing" not in finished([trial(arm, 0, 0.5) for arm in ARMS], list(ARMS), 1)

    def test_a_form_of_twice_the_compute_is_set_against_augmentation_with_as_much(self) -> None:
        arms = {"plain": 0.5, "augmentation": 0.6, "augmentation, twice": 0.7, "consistency, twice": 0.8}
        text = report("- here", ScratchSettings(), [trial(arm, 0, recall) for arm, recall in arms.items()], 1)
        assert "| consistency, twice | 0.800 | +30.0 [+30.0, +30.0] | +10.0 [+10.0, +10.0] |" in text

    def test_forms_without_a_training_have_no_column(self) -> None:
        text = report("- here", ScratchSettings(), [trial("plain", 0, 0.5), trial("masked tokens", 0, 0.4)], 1)
        assert "| scenes | plain | masked tokens |" in text
        assert "| recall@10, clean | masked tokens | 0.400 | -10.0 [-10.0, -10.0] |  |" in text

    def test_it_says_so_where_nothing_is_finished(self) -> None:
        assert "No training is finished." in report("- here", ScratchSettings(), [], 3)
