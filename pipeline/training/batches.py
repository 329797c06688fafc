"""From encoded examples to what a training step computes with, made ahead of it in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from model.training.corruptions import corrupt_crops
from model.training.label_tokens import label_token_ids, prompt_token_ids
from model.training.objective import PARAPHRASES, PackedLabels, pack_published, pack_restarting
from pipeline.actor.labeler import Labeler
from pipeline.errors import TagstreamError
from pipeline.training.examples import Example, ExampleStream, Position
from pipeline.training.settings import TrainSettings

_STEPS_AHEAD = 3
_LABELS_KEPT = 1 << 16
_Readable = tuple[np.ndarray, Example]
"""What the model sees of an image, uint8 [H, W, 3], and the example that it is of."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What a worker computes at once: uint8 crops [B, H, W, 3] and their packed labels."""

    crops_BHWC: np.ndarray
    packed: PackedLabels


@dataclass(frozen=True, slots=True)
class StepBatch:
    """A worker's share of one step, and the place in its order behind it."""

    micro_batches: list[MicroBatch]
    position: Position
    n_unreadable: int

    @property
    def n_images(self) -> int:
        return sum(len(batch.crops_BHWC) for batch in self.micro_batches)

    @property
    def n_targets(self) -> int:
        return sum(batch.packed.n_targets for batch in self.micro_batches)


class BatchMaker:
    """Decodes, draws prompts and packs labels. What it draws depends on (seed, step, rank) alone."""

    def __init__(self, labeler: Labeler, settings: TrainSettings, rank: int, n_ranks: int) -> None:
        self._labeler = labeler
        self._settings = settings
        self._rank = rank
        self._config = labeler.recognizer.config
        self._size = settings.batch_size // n_ranks
        if self._size * n_ranks != settings.batch_size:
            raise TagstreamError(f"batch_size is {settings.batch_size}; expected a multiple of the {n_ranks} workers")
        tokenizer = labeler.recognizer.tokenizer
        self._token_ids = lru_cache(_LABELS_KEPT)(lambda label: label_token_ids(tokenizer, label, self._config))
        self._prompts = [self._config.prompt_ids]
        if settings.prompts == "paraphrases":
            try:
                self._prompts = prompt_token_ids(tokenizer, self._config, PARAPHRASES)
            except ValueError as error:
                raise TagstreamError(str(error)) from error

    def steps(self, stream: ExampleStream, first_step: int, position: Position) -> Iterator[StepBatch]:
        """Endless batches, one a step; the next few are in the making while the caller computes."""
        batches = stream.batches(self._size, position)
        ahead: deque[Future[StepBatch]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="batch") as pool:
            for step, (examples, behind) in enumerate(batches, start=first_step):
                ahead.append(pool.submit(self.make, step, examples, behind))
                if len(ahead) > _STEPS_AHEAD:
                    yield ahead.popleft().result()

    def make(self, step: int, examples: Sequence[Example], behind: Position) -> StepBatch:
        """One step's batch. Images that cannot be decoded are left out and counted."""
        rng = np.random.default_rng([self._settings.seed, step, self._rank])
        decoded = self._labeler.decode_images(example.data for example in examples)
        readable = [(image.views[0], example) for image, example in zip(decoded, examples, strict=True) if image.views]
        readable = self._partly_spoilt(readable, rng.spawn(1)[0])
        size = self._settings.micro_batch_size or len(examples)
        micro_batches = [
            self._micro_batch(readable[start : start + size], rng) for start in range(0, len(readable), size)
        ]
        return StepBatch(micro_batches, behind, len(examples) - len(readable))

    def _micro_batch(self, images: Sequence[_Readable], rng: np.random.Generator) -> MicroBatch:
        labels = [self._drawn_labels(example, rng) for _, example in images]
        prompts = [self._prompts[place] for place in rng.integers(len(self._prompts), size=len(images))]
        pack = pack_restarting if self._settings.objective == "restarting" else pack_published_form
        packed = pack(prompts, labels, self._config.delimiter_id, self._config.n_image_tokens)
        return MicroBatch(np.stack([crop for crop, _ in images]), packed)

    def _partly_spoilt(self, images: list[_Readable], rng: np.random.Generator) -> list[_Readable]:
        """The images, a share of them corrupted; all of a step at once, whatever the size of a micro-batch.

        Args:
            rng: its own, so that prompts and labels are drawn as without corruption.
        """
        share = self._settings.corruption.picture_share
        if not share or not images:
            return images
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 63)))
        crops = corrupt_crops(np.stack([crop for crop, _ in images]), share, generator)
        return [(crop, example) for crop, (_, example) in zip(crops, images, strict=True)]

    def _drawn_labels(self, example: Example, rng: np.random.Generator) -> list[list[int]]:
        """The image's labels as token ids, in random order and not too many."""
        token_ids = [ids for label in example.labels if (ids := self._token_ids(label))]
        order = rng.permutation(len(token_ids))[: self._settings.max_labels]
        return [token_ids[place] for place in order]


def pack_published_form(*arguments: Any) -> PackedLabels:
    """The public code's form, in which the last label stays open."""
    return pack_published(*arguments, close_last=False)
