"""Time that a benchmark may take, and what of it is left."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """So many seconds from now on."""

    def __init__(self, total_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: tells seconds.
        """
        self._clock = clock
        self._end_s = clock() + total_s

    def left_s(self) -> float:
        return max(0.0, self._end_s - self._clock())

    def share(self, limit_s: float) -> Budget:
        """A budget of `limit_s` seconds from now on, or of what is left where that is less."""
        return Budget(min(limit_s, self.left_s()), self._clock)
