"""Seconds that a device spends on the parts of a batch: encoding, prefill, branches."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any


class PartClock:
    """Notes when each part of a device's work ends.

    On CUDA a mark is an event in the stream: nothing waits for it, and the seconds are those of the GPU, not those in
    which its queue was filled.
    """

    def __init__(self, device: str) -> None:
        self._is_cuda = device.startswith("cuda")
        self._marks: list[tuple[str, Any]] = [("", self._now())]

    def mark(self, part: str) -> None:
        """The part ends here; it began at the mark before."""
        self._marks.append((part, self._now()))

    def seconds(self) -> dict[str, float]:
        """Seconds of each part. Waits for the last mark, which is past where results are in the CPU's memory."""
        if self._is_cuda:
            self._marks[-1][1].synchronize()
        return {part: self._between(before, after) for (_, before), (part, after) in pairwise(self._marks)}

    def _now(self) -> Any:
        if not self._is_cuda:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between(self, before: Any, after: Any) -> float:
        # CUDA tells milliseconds.
        return before.elapsed_time(after) / 1e3 if self._is_cuda else after - before
