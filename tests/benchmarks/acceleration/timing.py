"""Seconds of the recognizer's parts, operations a second, and whether two ways find the same labels."""

from __future__ import annotations

import gc
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.nxtp.configuration import RecognizerConfig
from model.nxtp.modeling import Prefix
from model.part_clock import PartClock
from model.sampling import Branches
from tests.benchmarks.one_shot_flops import branch_flops, encode_flops, prefill_flops

PARTS = ("encode", "prefill", "branches")
# Repetitions end when either is reached.
_MAX_REPEATS, _MIN_REPEATS, _REPEAT_S = 9, 3, 2.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way to label images: the three parts of one-shot sampling.

    image_tokens: what the image tokens are merged into; 0 is all of them.
    """

    encode: Callable[[Tensor], Tensor]
    prefill: Callable[[Tensor], Prefix]
    sample: Callable[[Prefix, int, int], Branches]
    image_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a way labels batches of one size.

    branches: of the first batch.
    part_s: median seconds of each part of a batch.
    batch_s: median seconds of a batch.
    first_s: seconds of the first batch, with all that is compiled and recorded then.
    peak_bytes: memory that the process held at most, 0 on a CPU.
    image_tokens: the way's.
    """

    branches: Branches
    part_s: dict[str, float]
    batch_s: float
    first_s: float
    peak_bytes: int
    image_tokens: int


@torch.inference_mode()
def measure(way: Way, batches: Sequence[Tensor], top_k: int, max_label_tokens: int) -> Timing:
    """Labels the batches in turn, each once to warm up, then until two seconds are over.

    Args:
        batches: pixel values [B, 3, H, W] of the same size.
    """
    on_gpu = batches[0].device.type == "cuda"
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    branches, _ = label(way, batches[0], top_k, max_label_tokens)
    first_s = time.perf_counter() - started
    for batch in batches[1:]:
        label(way, batch, top_k, max_label_tokens)
    runs: list[dict[str, float]] = []
    started = time.perf_counter()
    while len(runs) < _MIN_REPEATS or (len(runs) < _MAX_REPEATS and time.perf_counter() - started < _REPEAT_S):
        runs.append(label(way, batches[len(runs) % len(batches)], top_k, max_label_tokens)[1])
    return Timing(
        branches=branches,
        part_s={part: statistics.median(run[part] for run in runs) for part in PARTS},
        batch_s=statistics.median(sum(run.values()) for run in runs),
        first_s=first_s,
        peak_bytes=torch.cuda.max_memory_reserved() if on_gpu else 0,
        image_tokens=way.image_tokens,
    )


def label(way: Way, pixels: Tensor, top_k: int, max_label_tokens: int) -> tuple[Branches, dict[str, float]]:
    """The branches of a batch, in the CPU's memory, and the seconds of each part on the device."""
    clock = PartClock(pixels.device.type)
    embeds = way.encode(pixels)
    clock.mark("encode")
    prefix = way.prefill(embeds)
    clock.mark("prefill")
    branches = fetch(way.sample(prefix, top_k, max_label_tokens))
    clock.mark("branches")
    return branches, clock.seconds()


def fetch(branches: Branches) -> Branches:
    """The branches in the CPU's memory, once they are computed."""
    return Branches(*(column.cpu() for column in branches.columns()))


def flops_of(config: RecognizerConfig, branches: Branches, image_tokens: int) -> int:
    """Operations that a batch needs, nothing computed in vain.

    Args:
        image_tokens: what the image tokens are merged into; 0 is all of them.
    """
    prefixes = len(branches.n_tokens_BK) * (encode_flops(config) + prefill_flops(config, image_tokens))
    return prefixes + branch_flops(config, branches, image_tokens)


def agreement(reference: Branches, other: Branches) -> float:
    """The share of the reference's branches whose tokens the same image has in the other, too, in whatever order.

    Two branches whose first tokens are about as probable may change places: both are found all the same.
    """
    n_found = n_branches = 0
    for expected, found in zip(reference.to_lists(), other.to_lists(), strict=True):
        wanted = Counter((ids, finished) for ids, _, finished in expected)
        n_found += (wanted & Counter((ids, finished) for ids, _, finished in found)).total()
        n_branches += len(expected)
    return n_found / n_branches


def matmul_rate(multiply: Callable[[], object], n_operations: float, device: str) -> float:
    """Operations a second of a product, the median of ten after three that warm up."""
    seconds = []
    for _ in range(13):
        clock = PartClock(device)
        multiply()
        clock.mark("product")
        seconds.append(clock.seconds()["product"])
    return n_operations / statistics.median(seconds[3:])
