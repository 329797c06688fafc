"""What was written of a sample for the tool that people review with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenSample:
    """Counts of what was written, and what the user should know of what was left out."""

    n_images: int
    n_labels: int
    notes: list[str]
