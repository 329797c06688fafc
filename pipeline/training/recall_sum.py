"""Whether an image's first label is true, and how many of its true labels are among its first k."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

RECALL_AT = (5, 10)
# What is better the higher it is. `recall_<k>_limit` is beside them.
QUALITIES = ("hit_1", *(f"recall_{k}" for k in RECALL_AT))
MEASURES = (*QUALITIES, *(f"recall_{k}_limit" for k in RECALL_AT))


def _zeros() -> dict[int, float]:
    return dict.fromkeys(RECALL_AT, 0.0)


@dataclass(slots=True)
class RecallSum:
    """hit@1 and recall@k, summed over images; sums of several workers can be added.

    hit@1 says whether the first label is true. recall@k is the share of all true labels that are among the first k:
    an image with more than k true labels cannot reach 1. Its limit is the most that k labels can reach.
    """

    n_images: int = 0
    n_hits: float = 0
    """Images whose first label is true."""
    sums: dict[int, float] = field(default_factory=_zeros)
    """Recall by k."""
    limits: dict[int, float] = field(default_factory=_zeros)
    """The highest recall that is possible, by k."""

    def add(self, labels: Sequence[str], truth: Collection[str]) -> None:
        """Counts an image.

        Args:
            labels: best first.
            truth: not empty.
        """
        true = {normalised(label) for label in truth}
        listed = [normalised(label) for label in labels]
        self.n_images += 1
        self.n_hits += bool(true.intersection(listed[:1]))
        for k in RECALL_AT:
            self.sums[k] += len(true.intersection(listed[:k])) / len(true)
            self.limits[k] += min(k, len(true)) / len(true)

    def totals(self) -> list[float]:
        """All sums as numbers, which add up over workers; `of_totals` reads them."""
        return [self.n_images, self.n_hits, *self.sums.values(), *self.limits.values()]

    @classmethod
    def of_totals(cls, totals: Sequence[float]) -> RecallSum:
        """The sums whose `totals` these are."""
        n_images, n_hits, *by_k = totals
        sums, limits = by_k[: len(RECALL_AT)], by_k[len(RECALL_AT) :]
        return cls(
            int(n_images), n_hits, dict(zip(RECALL_AT, sums, strict=True)), dict(zip(RECALL_AT, limits, strict=True))
        )

    def means(self) -> dict[str, float | None]:
        """Means over images by name, as in `MEASURES`, 0 to 1; None without images."""
        _, *sums = self.totals()
        return {
            name: value / self.n_images if self.n_images else None for name, value in zip(MEASURES, sums, strict=True)
        }


def describe_qualities(means: Mapping[str, float | None]) -> str:
    """The measures as a text: "hit@1 0.978, recall@5 0.911 (at most 0.970), recall@10 0.952".

    Args:
        means: by name. The limits may be missing.
    """
    return ", ".join(f"{name.replace('_', '@')} {_with_limit(means, name)}" for name in QUALITIES)


def _with_limit(means: Mapping[str, float | None], name: str) -> str:
    value, limit = means.get(name), means.get(f"{name}_limit")
    text = "not measured" if value is None else f"{value:.3f}"
    return text if limit is None or limit >= 1 else f"{text} (at most {limit:.3f})"


def describe_limits(means: Mapping[str, float | None]) -> str:
    """At which k some of the images cannot reach a recall of 1; empty where all can, or none was measured."""
    limited = [k for k in RECALL_AT if (means.get(f"recall_{k}_limit") or 1.0) < 1]
    return " and ".join(f"an image with more than {k} true labels cannot reach a recall@{k} of 1" for k in limited)


def normalised(label: str) -> str:
    """A label as it is compared: case folded, single spaces."""
    return " ".join(label.casefold().split())
