"""What the tables are computed from."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from model import part_clock
from model.sampling import Branches
from tests.benchmarks.acceleration import timing
from tests.benchmarks.acceleration.timing import agreement, flops_of, matmul_rate, measure
from tests.benchmarks.acceleration.ways import Maker
from tests.benchmarks.one_shot_flops import branch_flops, encode_flops, prefill_flops


def branches(*images: list[tuple[int, ...]]) -> Branches:
    """Finished branches of these tokens, up to three."""
    ids = torch.tensor([[(*ids, *(0,) * (3 - len(ids))) for ids in image] for image in images])
    n_tokens = torch.tensor([[len(ids) for ids in image] for image in images])
    return Branches(ids, torch.zeros(ids.shape), n_tokens, torch.ones_like(n_tokens, dtype=torch.bool))


def test_branches_agree_where_the_same_image_has_the_same_tokens_in_any_order():
    reference = branches([(1, 9), (2, 9)], [(3, 9), (4, 5, 9)])
    assert agreement(reference, branches([(2, 9), (1, 9)], [(3, 9), (4, 5, 9)])) == 1
    assert agreement(reference, branches([(1, 9), (3, 9)], [(2, 9), (4, 6, 9)])) == 0.25


def test_a_branch_found_twice_counts_once():
    assert agreement(branches([(1, 9), (2, 9)]), branches([(1, 9), (1, 9)])) == 0.5


def test_a_batch_needs_the_operations_of_all_its_images_and_branches(recognizer):
    found, config = branches([(1, 9), (2, 9)], [(3, 9), (4, 5, 9)]), recognizer.config
    expected = 2 * encode_flops(config) + 2 * prefill_flops(config) + branch_flops(config, found)
    assert flops_of(config, found, image_tokens=0) == expected


def test_merged_tokens_need_fewer_operations(recognizer):
    found, config = branches([(1, 9), (2, 9)]), recognizer.config
    assert flops_of(config, found, image_tokens=1) < flops_of(config, found, image_tokens=0)


def test_a_rate_is_operations_by_the_median_second(monkeypatch):
    # A product takes a second, two in three of the last ten; the first three do not count.
    seconds = [50.0, 50.0, 50.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    times = iter([moment for spent in seconds for moment in (0.0, spent)])
    # Its own clock: threads of other tests may look at Python's.
    monkeypatch.setattr(part_clock, "time", SimpleNamespace(perf_counter=times.__next__))
    assert matmul_rate(lambda: None, 8e12, "cpu") == 8e12


def test_a_way_is_measured_part_by_part_over_runs_behind_those_that_warm_up(recognizer, make_pixels, monkeypatch):
    # Two batches warm up, one run each; then come the runs that count.
    spent = iter([9.0, 9.0, 1.0, 3.0, 2.0])
    labelled = []

    def label(way, pixels, top_k, max_label_tokens):
        labelled.append(pixels)
        seconds = next(spent)
        found = branches([(len(labelled), 9)])
        return found, {"encode": seconds, "prefill": 10 * seconds, "branches": 100 * seconds}

    monkeypatch.setattr(timing, "label", label)
    monkeypatch.setattr(timing, "_REPEAT_S", 0.0)
    batches = (make_pixels(2), make_pixels(2, seed=1))
    result = measure(Maker(recognizer.module).product(), batches, top_k=5, max_label_tokens=4)
    assert result.part_s == {"encode": 2, "prefill": 20, "branches": 200}
    assert result.batch_s == 222
    assert result.branches.token_ids_BKT[0, 0, 0] == 1
    assert [pixels is batches[0] for pixels in labelled] == [True, False, True, False, True]


@torch.inference_mode()
def test_the_parts_of_a_way_are_timed_one_behind_the_other(recognizer, make_pixels):
    found, seconds = timing.label(Maker(recognizer.module).product(), make_pixels(2), 5, 4)
    assert list(seconds) == ["encode", "prefill", "branches"]
    assert all(second > 0 for second in seconds.values())
    assert found.n_tokens_BK.shape == (2, 5)
