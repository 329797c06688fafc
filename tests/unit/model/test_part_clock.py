"""The seconds of the parts of a device's work."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from model import part_clock
from model.part_clock import PartClock


def pixels(recognizer, n_images=3):
    size = recognizer.preprocessor.image_size
    return torch.rand(n_images, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_a_part_lasts_from_the_mark_before_to_its_own(monkeypatch):
    # Its own clock: threads of other tests may look at Python's.
    monkeypatch.setattr(part_clock, "time", SimpleNamespace(perf_counter=iter([100.0, 103.0, 103.5]).__next__))
    clock = PartClock("cpu")
    clock.mark("encode")
    clock.mark("prefill")
    assert clock.seconds() == {"encode": 3.0, "prefill": 0.5}


@pytest.mark.parametrize(
    ("sampling", "parts"),
    [("one_shot", ["encode", "prefill", "branches"]), ("greedy", ["encode", "branches"])],
)
def test_sampling_marks_its_parts_and_finds_the_same(recognizer, sampling, parts):
    started = time.perf_counter()
    clock = PartClock("cpu")
    timed = recognizer.sample(pixels(recognizer), 4, sampling=sampling, clock=clock)
    elapsed_s = time.perf_counter() - started
    assert list(clock.seconds()) == parts
    # Rounding of float64.
    assert 0 < sum(clock.seconds().values()) <= elapsed_s + 1e-6
    assert recognizer.rank(timed) == recognizer.rank(recognizer.sample(pixels(recognizer), 4, sampling=sampling))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_a_part_is_what_the_gpu_spent_on_it():
    matrix = torch.rand(4096, 4096, device="cuda")
    for _ in range(3):
        matrix @ matrix
    torch.cuda.synchronize()
    clock = PartClock("cuda")
    started = time.perf_counter()
    for _ in range(20):
        matrix @ matrix
    queued_s = time.perf_counter() - started
    clock.mark("encode")
    torch.cuda.synchronize()
    elapsed_s = time.perf_counter() - started
    assert queued_s < clock.seconds()["encode"] <= elapsed_s * 1.1
