"""The recognizer's three parts rebuilt for an accelerator, over the weights of a `RecognizerModel`.

Shape suffixes: B images, C channels, X tokens of the encoder, W encoder width, N image tokens, S prefix tokens, D
decoder width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.ending import Ending
from model.nxtp.decoder import PrefixCache
from model.nxtp.modeling import Prefix, RecognizerModel
from model.sampling import Branches, sample_branches
from tests.benchmarks.acceleration.decoder_block import DecoderBlock
from tests.benchmarks.acceleration.encoder_block import EncoderBlock
from tests.benchmarks.acceleration.fp8 import Float8Linear
from tests.benchmarks.acceleration.projections import MakeLinear, PlainLinear
from tests.benchmarks.acceleration.static_branches import (
    RunStep,
    StaticBranches,
    StaticSteps,
    StepBlock,
    StepSizes,
    run_directly,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What is done to make a recognizer fast.

    fused: one product for queries, keys and values, and one for gate and up.
    compile_backend: of torch.compile for encoder and prefill, such as "inductor"; None leaves both as they are.
    compile_mode: how far the compiler searches; default its own default.
    compile_step: compiles the step of branches too.
    float8_encoder, float8_decoder: linear layers of the blocks in float8.
    """

    fused: bool = False
    compile_backend: str | None = None
    compile_mode: str | None = None
    compile_step: bool = False
    float8_encoder: bool = False
    float8_decoder: bool = False


def _directly() -> RunStep:
    return run_directly


class FastModel:
    """Encoder, prefill and branches of one recognizer, made by a recipe."""

    @torch.no_grad()
    def __init__(self, module: RecognizerModel, recipe: Recipe, make_run: Callable[[], RunStep] = _directly) -> None:
        """
        Args:
            make_run: makes what runs the steps of batches of one size, such as `GraphReplay`.
        """
        self._module, self._make_run = module, make_run
        layers = module.decoder.model.layers
        make_encoder, make_decoder = (_linear(float8) for float8 in (recipe.float8_encoder, recipe.float8_decoder))
        self._encoder_blocks = [
            EncoderBlock(layer, fused=recipe.fused, make=make_encoder) for layer in module.vision_encoder.encoder.layers
        ]
        self._blocks = [
            DecoderBlock(layer, is_last=layer is layers[-1], fused=recipe.fused, make=make_decoder) for layer in layers
        ]
        # One compilation serves all blocks: compiled apart, their weights are inputs.
        self._encode_block: Callable[..., Tensor] = EncoderBlock.forward
        self._prefill_block: Callable[..., tuple[Tensor, Tensor, Tensor]] = DecoderBlock.prefill
        self._step_block: StepBlock = DecoderBlock.step
        if recipe.compile_backend:
            options: dict[str, Any] = {
                "backend": recipe.compile_backend,
                "mode": recipe.compile_mode,
                "fullgraph": True,
            }
            self._encode_block = torch.compile(EncoderBlock.forward, dynamic=False, **options)
            self._prefill_block = torch.compile(DecoderBlock.prefill, dynamic=False, **options)
            if recipe.compile_step:
                # Shapes of steps are many.
                self._step_block = torch.compile(DecoderBlock.step, dynamic=True, **options)
        self._sizes: StepSizes | None = None

    def encode(self, pixel_values_BCHW: Tensor) -> Tensor:
        """Image tokens, [B, N, D]: as `RecognizerModel.encode_images`."""
        encoder = self._module.vision_encoder
        hidden_BXW = encoder.pre_layrnorm(encoder.embeddings(pixel_values_BCHW))
        for block in self._encoder_blocks:
            hidden_BXW = self._encode_block(block, hidden_BXW)
        return self._module.projector(encoder.post_layernorm(hidden_BXW)[:, 1:])

    def prefill(self, image_embeds_BND: Tensor, image_tokens: int = 0) -> Prefix:
        """As `RecognizerModel.prefill_image_tokens`."""
        model, config = self._module.decoder.model, self._module.config
        merged = self._module.merge_image_tokens(image_embeds_BND, image_tokens)
        read_BND = merged.embeds_BND if merged else image_embeds_BND
        prompt_ids = torch.tensor(config.prompt_ids, device=read_BND.device)
        prompt_BPD = model.embed_tokens(prompt_ids).expand(len(read_BND), -1, -1)
        hidden_BSD = torch.cat((read_BND, prompt_BPD.to(read_BND.dtype)), dim=1)
        places = merged.places(len(prompt_ids)) if merged else None
        positions_BS = torch.arange(hidden_BSD.shape[1], device=hidden_BSD.device)[None]
        positions_BS = places.positions_BS if places else positions_BS
        bias_BS = places.bias_BS.to(hidden_BSD.dtype) if places else None
        rotary = model.rotary_emb(hidden_BSD, positions_BS)
        cache = PrefixCache([], [], places)
        for block in self._blocks:
            hidden_BSD, key, value = self._prefill_block(block, hidden_BSD, rotary, read_BND.shape[1], bias_BS)
            cache.keys.append(key)
            cache.values.append(value)
        return Prefix(image_embeds_BND, model.norm(hidden_BSD[:, -1]), cache)

    def sample(self, prefix: Prefix, top_k: int, max_label_tokens: int) -> Branches:
        """As `sample_one_shot`."""
        config, answer_BD = self._module.config, prefix.answer_BD
        sizes = StepSizes(len(answer_BD), top_k, max_label_tokens, prefix.cache.n_tokens)
        if sizes != self._sizes:
            # Buffers of one size at a time: they are large, and what was recorded over others is of no use.
            self._sizes, self._steps = (
                sizes,
                StaticSteps(self._module, self._blocks, sizes, self._make_run(), self._step_block),
            )
        branches = StaticBranches(self._module, self._steps, prefix)
        return sample_branches(branches, Ending([config.delimiter_id], answer_BD.device), top_k, max_label_tokens)


def _linear(float8: bool) -> MakeLinear:
    return Float8Linear if float8 else PlainLinear
