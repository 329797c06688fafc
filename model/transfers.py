"""Batches on their way to a CUDA device, and results on their way back, while the device computes other ones.

A copy from or to pinned memory, on a stream of its own, runs beside the kernels of other streams. It needs neither the
device's thread nor the device's multiprocessors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor


class Transfers:
    """Brings batches to a CUDA device while it works on others. Any thread may send."""

    def __init__(self, device: str) -> None:
        """
        Args:
            device: torch's name of a CUDA device.
        """
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()

    def send(self, prepare: Callable[[], Any]) -> Callable[[], Any]:
        """Prepares a batch in this thread and begins to bring it to the device.

        Args:
            prepare: gives a tensor or a mapping that holds tensors, in the CPU's memory or on the device already.

        Returns what gives the batch, on the device, to the thread that computes with it. That thread does not wait:
        its stream does.
        """
        # One at a time: tokenizers of transformers fail where two threads use them at once.
        with self._lock, torch.cuda.stream(self._stream):
            batch = to_device(prepare(), self._device)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        return partial(self._take, batch, arrived)

    def _take(self, batch: Any, arrived: torch.cuda.Event) -> Any:
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(arrived)
        for tensor in _tensors(batch):
            # Its memory is the other stream's, which else would give it away while this one still reads it.
            tensor.record_stream(stream)
        return batch


def to_device(batch: Any, device: torch.device) -> Any:
    """A tensor, or the tensors of a mapping, on a device; to CUDA by way of pinned memory, so that nobody waits."""
    if isinstance(batch, Mapping):
        return {name: to_device(value, device) for name, value in batch.items()}
    if not isinstance(batch, Tensor) or batch.device == device:
        return batch
    if device.type != "cuda" or batch.is_cuda:
        return batch.to(device)
    return batch.pin_memory().to(device, non_blocking=True)


class Results:
    """Tensors that a device has computed, or will have once its stream is there."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """
        Args:
            tensors: computed, or being computed, on the current stream.
        """
        self._tensors = list(tensors)
        self._computed: torch.cuda.Event | None = None
        if self._tensors and self._tensors[0].is_cuda:
            self._computed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._computed.record()

    def fetch(self) -> list[Tensor]:
        """The tensors in the CPU's memory. Waits for them, and not for what the device was given to do behind them."""
        if self._computed is None:
            return self._tensors
        device = self._tensors[0].device
        with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
            torch.cuda.current_stream(device).wait_event(self._computed)
            copies = [_start_copy(tensor) for tensor in self._tensors]
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record()
        arrived.synchronize()
        return copies


def _start_copy(tensor: Tensor) -> Tensor:
    tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, Tensor):
        yield batch
