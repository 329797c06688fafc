"""How long a job may take, so that it ends before a deadline or before it costs too much."""

from __future__ import annotations

from dataclasses import dataclass

# What is whole is still committed then, and workers are stopped.
CLOSING_S = 5.0


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """The seconds that a job may take, its start included."""

    seconds: float
    alarm: str
    """What a summary says where the limit ended the job: `deadline 2026-12-01T06:00+00:00`, `cost > 20`."""

    def is_over(self, elapsed_s: float) -> bool:
        """Whether it is time to end a job that has taken this long."""
        return elapsed_s >= self.seconds - CLOSING_S

    def n_images(self, images_per_s: float, start_up_s: float) -> float:
        """How many images a job labels within the limit."""
        return max(0.0, self.seconds - CLOSING_S - start_up_s) * images_per_s
