"""What a job rejected, by class, with an example of each."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.text import conceal
from schemas import REJECTED


class RejectTally:
    """Counts rejected images; as small as there are classes of faults. Its caller keeps threads apart."""

    def __init__(self) -> None:
        self._by_class: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, images: pa.Table) -> None:
        """Counts those of a shard's images that were rejected."""
        rejected = images.filter(pc.equal(images.column("status"), REJECTED))
        columns = ["error", "stage", "shard", "key", "message"]
        for row in rejected.select(columns).to_pylist():
            example = {name: conceal(row[name] or "") for name in columns}
            first = self._by_class.setdefault((row["error"], row["stage"]), {"n_images": 0, **example})
            first["n_images"] += 1

    def most_first(self) -> list[dict[str, Any]]:
        """error, stage, n_images of each class, and shard, key and message of the first image of it that came back."""
        return sorted((dict(found) for found in self._by_class.values()), key=lambda found: -found["n_images"])
