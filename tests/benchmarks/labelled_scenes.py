"""Scenes with known content, and how much of it a recognizer finds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice

from PIL import Image

from model import Recognizer
from pipeline.sources.batches import read_batches
from pipeline.training.job import source_shards
from pipeline.training.recall_sum import RecallSum

_BATCH = 32
Scene = tuple[Image.Image, list[str]]


def read_scenes(source: str, n_scenes: int) -> list[Scene]:
    """The first images of a source with their true labels."""
    samples = (
        sample
        for shard in source_shards(source)
        for table in read_batches(shard, _BATCH)
        for row in table.column("samples").to_pylist()
        for sample in row
    )
    return [
        (Image.open(io.BytesIO(sample["data"])).convert("RGB"), sample["truth"]) for sample in islice(samples, n_scenes)
    ]


def measure_recall(recognizer: Recognizer, scenes: Sequence[Scene]) -> RecallSum:
    """Recall at 1, 5 and 10."""
    recall = RecallSum()
    for start in range(0, len(scenes), _BATCH):
        images, truths = zip(*scenes[start : start + _BATCH], strict=True)
        for labels, truth in zip(recognizer.label(images, top_k=10), truths, strict=True):
            recall.add([label.text for label in labels], truth)
    return recall
