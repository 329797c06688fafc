"""How many of an image's true labels are among its first k."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

RECALL_AT = (1, 5, 10)


@dataclass(slots=True)
class RecallSum:
    """Recall at several k, summed over images; sums of several workers can be added.

    Recall at k is the share of the true labels that are among the first k, of as many as k labels can hold: at 1 it
    says whether the best label is in the image.
    """

    n_images: int = 0
    sums: dict[int, float] = field(default_factory=lambda: dict.fromkeys(RECALL_AT, 0.0))

    def add(self, labels: Sequence[str], truth: Collection[str]) -> None:
        """Counts an image.

        Args:
            labels: best first.
            truth: not empty.
        """
        true = {normalised(label) for label in truth}
        listed = [normalised(label) for label in labels]
        self.n_images += 1
        for k in self.sums:
            self.sums[k] += len(true.intersection(listed[:k])) / min(k, len(true))

    def mean(self, k: int) -> float | None:
        """Mean over images, 0 to 1; None without images."""
        return self.sums[k] / self.n_images if self.n_images else None


def normalised(label: str) -> str:
    """A label as it is compared: case folded, single spaces."""
    return " ".join(label.casefold().split())
