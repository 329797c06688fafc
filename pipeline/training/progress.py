"""What a running training job tells of itself; the command draws it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class TrainProgress:
    """The last that a worker reported."""

    n_steps: int = 0
    phase: str = "starting"
    step: int = 0
    loss: float | None = None
    recall_10: float | None = None
    recall_10_limit: float | None = None
    images_per_s: float = 0.0
    steps_per_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, phase: str) -> None:
        with self.lock:
            self.phase = phase

    def update(self, report: Mapping[str, Any]) -> None:
        """Takes a worker's report: a phase, and where steps were done a row of the metrics."""
        with self.lock:
            self.phase = report["phase"]
            if "step" in report:
                self.step, self.loss = report["step"], report["label_loss"]
                self.images_per_s = report["images_per_s"]
                self.steps_per_s = report["steps_per_s"]
                if report["recall_10"] is not None:
                    self.recall_10, self.recall_10_limit = report["recall_10"], report["recall_10_limit"]

    @property
    def eta_s(self) -> float | None:
        """Seconds to the last step at the present rate, evaluations left out."""
        return (self.n_steps - self.step) / self.steps_per_s if self.steps_per_s else None
