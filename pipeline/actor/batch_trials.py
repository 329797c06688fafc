"""Tries how fast a labeler is with batches of one size on CUDA, and how much memory that takes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.actor.batch_size import Trial

# Two at a time, as an actor labels.
_N_CALLS = 2
_N_BATCHES = 6


def make_photograph() -> bytes:
    """An image of a photograph's shape, from which a model of the hub makes as many tokens."""
    noise = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def try_batches(label: Callable[[list[np.ndarray]], Any], views: list[np.ndarray]) -> Trial | None:
    """Labels a batch some times; None where CUDA has not memory enough.

    Args:
        label: waits for the labels. It is called in several threads.
    """
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        # Kernels are chosen and loaded when they are first used.
        label(views)
        started = time.perf_counter()
        with ThreadPoolExecutor(_N_CALLS) as callers:
            list(callers.map(label, [views] * _N_BATCHES))
        seconds = time.perf_counter() - started
    except torch.OutOfMemoryError:
        return None
    return Trial(_N_BATCHES * len(views) / seconds, torch.cuda.max_memory_reserved())


def device_memory_bytes() -> int:
    """Memory of the device, whoever uses it."""
    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
