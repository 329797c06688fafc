"""Evaluation during training: the labelling class labels held-out images, and their truth says how well."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from pipeline.actor.labeler import Labeler
from pipeline.sources.shard import Shard
from pipeline.training.examples import read_tables, target_labels
from pipeline.training.recall_sum import RecallSum
from pipeline.training.settings import TrainSettings


class Evaluation:
    """hit@1 and recall@k on the first images of a source, shared among the workers; the images stay in memory."""

    def __init__(self, shards: list[Shard], settings: TrainSettings, rank: int, n_ranks: int) -> None:
        self._shards, self._settings = shards, settings
        self._rank, self._n_ranks = rank, n_ranks
        self._tables: list[pa.Table] | None = None

    def measure(self, labeler: Labeler, total: Callable[[list[float]], list[float]]) -> dict[str, float | None]:
        """Means by name, as in `MEASURES`, over all workers' images with a truth; None where there is none.

        Args:
            total: sums values over the workers.
        """
        if self._tables is None:
            self._tables = self._read()
        recall = RecallSum()
        for table in self._tables:
            for row in labeler(table).select(["labels", "truth", "caption"]).to_pylist():
                truth = target_labels(row["truth"], row["caption"], self._settings)
                if truth:
                    recall.add([label["label"] for label in row["labels"]], truth)
        return RecallSum.of_totals(total(recall.totals())).means()

    def _read(self) -> list[pa.Table]:
        """This worker's batches of the first `eval_images` images."""
        tables: list[pa.Table] = []
        n_images = 0
        for table in read_tables(self._shards):
            for row in range(table.num_rows):
                if n_images >= self._settings.eval_images:
                    return tables[self._rank :: self._n_ranks]
                n_images += len(table.column("samples")[row].values)
                tables.append(table.slice(row, 1))
        return tables[self._rank :: self._n_ranks]
