"""Branches decoded in steps of few shapes over memory that stays where it is, so that a step can be recorded.

Shape suffixes: B images, M live branches, N branches that go on, R rows that a step computes (live branches and
padding), T tokens a branch can feed, K key/value heads, E head width, D decoder width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.nxtp.decoder import PrefixCache
from model.nxtp.modeling import Prefix, RecognizerModel
from tests.benchmarks.acceleration.buckets import doubling_bucket, row_bucket
from tests.benchmarks.acceleration.decoder_block import DecoderBlock, StepInputs


class StepShape(NamedTuple):
    """What the shapes of a step's tensors depend on.

    n_rows: branches that are computed, live or not. n_places: of each image. n_tokens: own tokens attended to.
    """

    n_rows: int
    n_places: int
    n_tokens: int


class StepSizes(NamedTuple):
    """What is the same in all steps of a batch: images, branches an image, tokens a branch can feed, prefix tokens."""

    n_images: int
    top_k: int
    max_tokens: int
    n_prefix: int


# Runs a step, or replays what it recorded when it ran a step of this shape before.
RunStep = Callable[[StepShape, Callable[[], None]], None]
# A block's part of a step: `DecoderBlock.step`, or what a compiler made of it.
StepBlock = Callable[..., Tensor]


def run_directly(shape: StepShape, step: Callable[[], None]) -> None:
    step()


class StaticSteps:
    """Steps of the branches of batches of one size, `n_images` images with `top_k` branches each.

    Everything a step reads and writes lies in buffers that are made once. Steps of the same shape therefore run the
    same operations on the same addresses.
    """

    def __init__(
        self,
        module: RecognizerModel,
        blocks: Sequence[DecoderBlock],
        sizes: StepSizes,
        run: RunStep = run_directly,
        step_block: StepBlock = DecoderBlock.step,
    ) -> None:
        self._module, self._blocks, self._run, self._step_block = module, blocks, run, step_block
        self._n_images, self._top_k, self._max_tokens, n_prefix = sizes
        self._limit = self._n_images * self._top_k
        text, device = module.config.text_config, module.device
        first = module.decoder.model.layers[0].self_attn
        n_kv_heads, width = text.num_key_value_heads, first.head_dim

        def buffers(*shape: int) -> list[Tensor]:
            return [torch.zeros(shape, device=device, dtype=module.dtype) for _ in blocks]

        # The last row is the padding's.
        self._own_keys, self._own_values = (buffers(self._limit + 1, self._max_tokens, n_kv_heads, width) for _ in "kv")
        # Labels begin behind all of the image's tokens, also where fewer, merged ones are read.
        self._next_position = module.config.n_prefix_tokens
        self._bias_BS = None
        if n_prefix < self._next_position:
            self._bias_BS = torch.zeros(self._n_images, n_prefix, device=device, dtype=module.dtype)
        self._prefix = PrefixCache(*(buffers(self._n_images, n_kv_heads, n_prefix, width) for _ in "kv"))
        self._token_ids_M, self._row_M, self._place_M = torch.zeros(
            3, self._limit, device=device, dtype=torch.long
        ).unbind()
        self._token_1 = torch.zeros(1, device=device, dtype=torch.long)
        self._logits_MV = torch.zeros(self._limit, text.vocab_size, device=device)

    def take_prefix(self, cache: PrefixCache) -> None:
        """Copies the prefixes of a batch to where steps read them."""
        for ours, theirs in zip(self._prefix.keys + self._prefix.values, cache.keys + cache.values, strict=True):
            ours.copy_(theirs)
        if self._bias_BS is not None:
            assert cache.places is not None
            self._bias_BS.copy_(cache.places.bias_BS)

    def __call__(self, token_ids_M: Tensor, row_M: Tensor, image_M: Tensor, n_tokens: int) -> Tensor:
        """Feeds branches a token each, and returns the logits behind it, float32 [M, V], until the next call.

        Args:
            row_M: where each branch keeps its own tokens; rows of different branches differ.
            image_M: the image of each, ascending.
            n_tokens: tokens that the branches have fed before.
        """
        slot_M, n_slots = slots_of(image_M, self._n_images)
        shape = StepShape(
            row_bucket(len(token_ids_M), self._limit),
            doubling_bucket(n_slots, self._top_k),
            doubling_bucket(n_tokens + 1, self._max_tokens),
        )
        padding = slice(len(token_ids_M), shape.n_rows)
        for buffer, values, filling in (
            (self._token_ids_M, token_ids_M, 0),
            (self._row_M, row_M, self._limit),
            (self._place_M, image_M * shape.n_places + slot_M, self._n_images * shape.n_places),
        ):
            buffer[: len(token_ids_M)] = values
            buffer[padding] = filling
        self._token_1.fill_(n_tokens)
        self._run(shape, lambda: self._step(shape))
        return self._logits_MV[: len(token_ids_M)]

    def _step(self, shape: StepShape) -> None:
        decoder = self._module.decoder
        rows = slice(shape.n_rows)
        seen_T = torch.arange(shape.n_tokens, device=self._token_1.device) <= self._token_1
        inputs = StepInputs(
            self._row_M[rows], self._place_M[rows], self._token_1, seen_T, shape.n_places, self._bias_BS
        )
        hidden_RD = decoder.model.embed_tokens(self._token_ids_M[rows])
        cos_11E, sin_11E = decoder.model.rotary_emb(hidden_RD, (self._next_position + self._token_1).view(1, 1))
        for index, block in enumerate(self._blocks):
            own = (self._own_keys[index], self._own_values[index])
            prefix = (self._prefix.keys[index], self._prefix.values[index])
            hidden_RD = self._step_block(block, hidden_RD, (cos_11E[0], sin_11E[0]), inputs, own, prefix)
        self._logits_MV[rows] = decoder.lm_head(decoder.model.norm(hidden_RD))


class StaticBranches:
    """A `BranchDecoder` over `StaticSteps`. A place may be kept once only: sampling never forks a branch."""

    def __init__(self, module: RecognizerModel, steps: StaticSteps, prefix: Prefix) -> None:
        self._steps = steps
        steps.take_prefix(prefix.cache)
        self.first_logits_BV = module.token_logits(prefix.answer_BD)

    def open(self, image_M: Tensor) -> None:
        self._image_M, self._n_tokens = image_M, 0
        self._row_M = torch.arange(len(image_M), device=image_M.device)

    def step(self, token_ids_M: Tensor) -> Tensor:
        logits_MV = self._steps(token_ids_M, self._row_M, self._image_M, self._n_tokens)
        self._n_tokens += 1
        return logits_MV

    def keep(self, places_N: Tensor) -> None:
        self._image_M, self._row_M = self._image_M[places_N], self._row_M[places_N]


def slots_of(image_M: Tensor, n_images: int) -> tuple[Tensor, int]:
    """The number of each branch among its image's, and how many the image with most has. `image_M` is ascending."""
    n_live_B = torch.zeros(n_images, device=image_M.device, dtype=torch.long)
    n_live_B.index_add_(0, image_M, torch.ones_like(image_M))
    start_B = n_live_B.cumsum(0) - n_live_B
    return torch.arange(len(image_M), device=image_M.device) - start_B[image_M], int(n_live_B.max())
