"""CUDA graphs of steps: recorded when a shape comes for the first time, replayed ever after."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from tests.benchmarks.acceleration.static_branches import StepShape


class GraphReplay:
    """Runs steps as CUDA graphs, one a shape.

    All graphs share one pool of memory. Nothing that a step leaves may lie in it: a step writes its results into
    buffers made before. Then a hundred graphs need no more memory than the largest of them.
    """

    def __init__(self) -> None:
        self._graphs: dict[StepShape, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self.recording_s = 0.0

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(self, shape: StepShape, step: Callable[[], None]) -> None:
        if shape in self._graphs:
            self._graphs[shape].replay()
        else:
            self._graphs[shape] = self._record(step)

    def _record(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Runs the step, which loads what it needs and gives the results that are waited for, then records it."""
        torch.cuda.synchronize()
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step()
        self.recording_s += time.perf_counter() - started
        return graph
