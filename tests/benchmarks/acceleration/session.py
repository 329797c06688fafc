"""What the measures of NXTP on an accelerator share in one process: the model, its batches, what eager labels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from one_shot import sweep_plan
from torch import Tensor

from model import Recognizer
from model.sampling import Branches
from tests.benchmarks.acceleration import timing
from tests.benchmarks.acceleration.fp8 import Float8Linear, quantize_rows
from tests.benchmarks.acceleration.timing import Timing, Way, flops_of
from tests.benchmarks.acceleration.ways import WAYS, Maker
from tests.fixtures.recognizers.random_recognizer import random_recognizer

# Batches that are labelled in turn.
N_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a product's rate is measured, and of how many images and branches batches are."""

    matmul_side: int
    batch: int
    top_k: int
    swept_batches: Sequence[int]
    swept_best_batches: Sequence[int]


FULL = Sizes(8192, 64, 20, (1, 8, 32, 64, 128, 256), (16, 64, 128))
TINY = Sizes(64, 3, 5, (1, 2), (2,))


class Session:
    """Made once a process. What is dear is made when it is first asked for."""

    def __init__(self, device: str, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.sizes = TINY if tiny else FULL
        self.plan = sweep_plan(tiny, None)
        self.dtype = self.plan.dtype
        self.eager_branches = cache(self._eager_branches)

    @cached_property
    def recognizer(self) -> Recognizer:
        return random_recognizer(
            vision=self.plan.vision,
            text=self.plan.text,
            end_share=self.plan.end_share,
            device=self.device,
            dtype=self.dtype,
        )

    @property
    def maker(self) -> Maker:
        return Maker(self.recognizer.module)

    def batches(self, n_images: int) -> tuple[Tensor, ...]:
        """Pixel values of batches of this size, always the same."""
        size, generator = self.plan.vision.image_size, torch.Generator().manual_seed(0)
        pixels = torch.randn(N_BATCHES * n_images, 3, size, size, generator=generator)
        return pixels.to(self.device, self.dtype).chunk(N_BATCHES)

    def measure(self, way: Way, n_images: int, top_k: int) -> Timing:
        return timing.measure(way, self.batches(n_images), top_k, self.plan.max_label_tokens)

    @torch.inference_mode()
    def _eager_branches(self, n_images: int, top_k: int) -> Branches:
        """What the product finds in the first batch."""
        way = WAYS["eager"](self.maker)
        return timing.label(way, self.batches(n_images)[0], top_k, self.plan.max_label_tokens)[0]

    @cached_property
    def matmul_rate(self) -> float:
        """Operations a second of a square product of noise in the model's dtype."""
        side = self.sizes.matmul_side
        left, right = torch.randn(2, side, side, device=self.device, dtype=self.dtype)
        return timing.matmul_rate(lambda: left @ right, 2 * side**3, self.device)

    def float8_rate(self) -> float:
        """The same in float8 with a scale a row, the input quantized before."""
        side = self.sizes.matmul_side
        left, right = torch.randn(2, side, side, device=self.device, dtype=self.dtype)
        layer, (rows, scale) = Float8Linear(right, None), quantize_rows(left)
        return timing.matmul_rate(lambda: layer.multiply(rows, scale, self.dtype), 2 * side**3, self.device)

    def speed_cells(self, timing_: Timing) -> tuple[str, ...]:
        """Images/s, TFLOP/s, share of the matmul rate, ms an image of each part, GiB."""
        n_images = len(timing_.branches.n_tokens_BK)
        flops_per_s = flops_of(self.recognizer.config, timing_.branches, timing_.image_tokens) / timing_.batch_s
        parts_ms = (f"{1e3 * seconds / n_images:.3f}" for seconds in timing_.part_s.values())
        return (
            f"{n_images / timing_.batch_s:.1f}",
            f"{flops_per_s / 1e12:.3g}",
            f"{flops_per_s / self.matmul_rate:.0%}",
            *parts_ms,
            f"{timing_.peak_bytes / 2**30:.1f}",
        )
