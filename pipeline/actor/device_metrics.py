"""What a labelling actor tells Prometheus of its device."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time

from pipeline.actor.device_thread import DeviceThread
from pipeline.metrics import DEVICE_BUSY, DEVICE_MEMORY, DEVICE_QUEUE, SHOW_EVERY_S, make_metrics


class DeviceMetrics:
    """What a labelling actor tells of its device, from a thread of its own."""

    def __init__(self, run: str, job: str, device: str, thread: DeviceThread) -> None:
        self._metrics = make_metrics((DEVICE_QUEUE, DEVICE_BUSY, DEVICE_MEMORY), run, job)
        self._tags = {"worker": f"{socket.gethostname()}:{os.getpid()}", "device": device}
        self._device = device
        self._thread = thread

    def start(self) -> None:
        """Shows the device as long as the process lives."""
        threading.Thread(target=self._show_for_ever, name="metrics", daemon=True).start()

    def _show_for_ever(self) -> None:
        while True:
            busy_s, at = self._thread.busy_s, time.perf_counter()
            time.sleep(SHOW_EVERY_S)
            share = (self._thread.busy_s - busy_s) / (time.perf_counter() - at)
            self._metrics[DEVICE_BUSY].set(min(1.0, share), self._tags)
            self._metrics[DEVICE_QUEUE].set(self._thread.n_waiting, self._tags)
            self._metrics[DEVICE_MEMORY].set(_memory_bytes(self._device), self._tags)


def _memory_bytes(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.memory_reserved()
    # In KiB, but for macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
