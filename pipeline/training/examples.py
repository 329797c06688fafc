"""Training examples in a fixed order: the same for the same seed, and the same again after a restart.

A worker's order is an endless row of waves. A wave is one or more epochs over the worker's shards, each in an order of
its own, read by Ray Data in exactly that order and mixed in a shuffle buffer. Everything is drawn from (seed, wave,
rank), so a position is two numbers, and going on from it means to read the wave again up to there; nothing is decoded
on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError

from pipeline.actor.labeler import LabelerConfig
from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.actor_pool import map_on_pool
from pipeline.dataflow.datasource import ShardDatasource
from pipeline.dataflow.ray_errors import as_sentence
from pipeline.errors import TagstreamError
from pipeline.naming.nouns import nouns_of
from pipeline.sources.sample import Sample
from pipeline.sources.shard import Shard
from pipeline.training.settings import TrainSettings
from pipeline.training.teacher import Teacher

# A wave costs Ray Data a start: small sources are read several times in one.
_SHARDS_PER_WAVE = 64
_READ_BATCH = 64


@dataclass(frozen=True, slots=True)
class Example:
    """An encoded image and the labels it is to get."""

    data: bytes
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a worker's order: examples drawn from a wave."""

    wave: int = 0
    n_drawn: int = 0


@dataclass(frozen=True, slots=True)
class TeacherPlan:
    """Who labels the training images where they have no truth."""

    config: LabelerConfig
    pool: PoolPlan
    min_score: float


class ExampleStream:
    """The training examples of one of `n_ranks` workers."""

    def __init__(
        self, shards: list[Shard], settings: TrainSettings, rank: int, n_ranks: int, teacher: TeacherPlan | None
    ) -> None:
        self._shards = shards
        self._settings = settings
        self._rank, self._n_ranks = rank, n_ranks
        self._teacher = teacher

    def batches(self, size: int, position: Position) -> Iterator[tuple[list[Example], Position]]:
        """Endless batches of `size` examples from a position on, each with the position behind it."""
        batch: list[Example] = []
        wave, n_skipped = position.wave, position.n_drawn
        while True:
            n_drawn = 0
            for example in self._wave(wave):
                n_drawn += 1
                if n_drawn <= n_skipped:
                    continue
                batch.append(example)
                if len(batch) == size:
                    yield batch, Position(wave, n_drawn)
                    batch = []
            if n_drawn == 0:
                raise TagstreamError(self._why_nothing())
            wave, n_skipped = wave + 1, 0

    def _why_nothing(self) -> str:
        if self._teacher is not None:
            return (
                f"the teacher gives no image of the source a label of score {self._teacher.min_score} or more; "
                "lower --min-score"
            )
        return (
            "the source has no image with labels to learn from; labels come from `labels` in .json or from nouns of "
            "captions, see the setting targets"
        )

    def _wave(self, wave: int) -> Iterator[Example]:
        rng = np.random.default_rng([self._settings.seed, wave, self._rank])
        examples = self._examples(self._shards_of_wave(wave))
        return shuffled(examples, self._settings.shuffle_buffer, rng)

    def _shards_of_wave(self, wave: int) -> list[Shard]:
        """The wave's shards in order; every worker has its own where there are enough for all."""
        n_epochs = math.ceil(_SHARDS_PER_WAVE * self._n_ranks / len(self._shards))
        shards = []
        for epoch in range(wave * n_epochs, (wave + 1) * n_epochs):
            order = np.random.default_rng([self._settings.seed, epoch]).permutation(len(self._shards))
            shards += [self._shards[place] for place in order]
        return shards[self._rank :: self._n_ranks] if self._shares_by_shard else shards

    @property
    def _shares_by_shard(self) -> bool:
        return len(self._shards) >= self._n_ranks

    def _examples(self, shards: list[Shard]) -> Iterator[Example]:
        for number, sample in enumerate(read_in_order(shards, self._teacher)):
            if not self._shares_by_shard and number % self._n_ranks != self._rank:
                continue
            labels = target_labels(sample.truth, sample.caption, self._settings)
            if sample.data is not None and labels:
                yield Example(sample.data, labels)


def target_labels(truth: Sequence[str] | None, caption: str | None, settings: TrainSettings) -> tuple[str, ...]:
    """The labels an image is to get: given ones or nouns of its caption, each once."""
    labels: Iterable[str] = ()
    if settings.targets != "captions" and truth:
        labels = (" ".join(label.split()) for label in truth)
    elif settings.targets != "labels" and caption:
        labels = nouns_of(caption, settings.noise_words)
    return tuple(dict.fromkeys(label for label in labels if label))


def shuffled(examples: Iterable[Example], buffer_size: int, rng: np.random.Generator) -> Iterator[Example]:
    """All examples once, mixed within a buffer."""
    buffer: list[Example] = []
    for example in examples:
        if len(buffer) < buffer_size:
            buffer.append(example)
            continue
        if not buffer:
            yield example
            continue
        place = int(rng.integers(len(buffer)))
        yield buffer[place]
        buffer[place] = example
    rng.shuffle(buffer)
    yield from buffer


def read_in_order(shards: list[Shard], teacher: TeacherPlan | None = None) -> Iterator[Sample]:
    """The samples of shards, read by Ray Data, in the order of the shards."""
    for table in read_tables(shards, teacher):
        for samples in table.column("samples"):
            yield from (Sample(**values) for values in samples.as_py())


def read_tables(shards: list[Shard], teacher: TeacherPlan | None = None) -> Iterator[pa.Table]:
    """Rows of `datasource.BATCHES`, in the order of the shards; with a teacher its labels stand in place of the truth.

    Reading ends with the generator, wherever that is left. (Not by `Dataset.iter_batches`, whose threads may go on.)

    Raises TagstreamError with one clear sentence for whatever stops the reading.
    """
    dataset = ray.data.read_datasource(ShardDatasource(shards, _READ_BATCH), override_num_blocks=len(shards))
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    if teacher is not None:
        dataset = map_on_pool(dataset, Teacher, (teacher.config, teacher.min_score), teacher.pool)
    try:
        for bundle in dataset.iter_internal_ref_bundles():
            yield from ray.get(list(bundle.block_refs))
    except RayError as error:
        raise as_sentence(error) from error
