"""The ways to run NXTP that are set side by side, each on its own and then together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.nxtp.branches import sample_one_shot
from model.nxtp.modeling import RecognizerModel
from tests.benchmarks.acceleration.fast_model import FastModel, Recipe
from tests.benchmarks.acceleration.graphs import GraphReplay
from tests.benchmarks.acceleration.static_branches import run_directly
from tests.benchmarks.acceleration.timing import Way


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes ways over one model.

    Where there is no CUDA, recorded steps run directly and what would be compiled is traced alone.
    """

    module: RecognizerModel

    @property
    def on_gpu(self) -> bool:
        return self.module.device.type == "cuda"

    def product(self) -> Way:
        """As the product labels today."""
        module = self.module
        return Way(
            module.encode_images,
            module.prefill_image_tokens,
            lambda prefix, top_k, max_label_tokens: sample_one_shot(module, prefix, top_k, max_label_tokens),
        )

    @property
    def a_quarter(self) -> int:
        """Of the image tokens."""
        return self.module.config.n_image_tokens // 4

    def merged(self) -> Way:
        """As the product labels with a quarter of the image tokens."""
        product, n_kept = self.product(), self.a_quarter
        prefill = partial(self.module.prefill_image_tokens, image_tokens=n_kept)
        return Way(product.encode, prefill, product.sample, n_kept)

    def encoder_attention(self, backend: SDPBackend) -> Way:
        """The product, with this kernel of attention for the encoder and no other."""
        product = self.product()

        def encode(pixels: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return product.encode(pixels)

        return Way(encode, product.prefill, product.sample)

    def fast(
        self,
        *,
        graphs: bool = False,
        fused: bool = False,
        compiled: bool = False,
        compiled_step: bool = False,
        float8_encoder: bool = False,
        float8_decoder: bool = False,
        mode: str | None = None,
        merged: bool = False,
    ) -> Way:
        """All parts rebuilt. Branches always run in steps of few shapes, recorded where `graphs` says so.

        Args:
            mode: how far the compiler searches; default its own default.
            merged: merges the image tokens into a quarter.
        """
        recipe = Recipe(
            fused=fused,
            compile_backend=("inductor" if self.on_gpu else "eager") if compiled else None,
            compile_mode=mode if self.on_gpu else None,
            compile_step=compiled_step,
            float8_encoder=float8_encoder,
            float8_decoder=float8_decoder,
        )
        model = FastModel(self.module, recipe, GraphReplay if graphs and self.on_gpu else lambda: run_directly)
        image_tokens = self.a_quarter if merged else 0
        return Way(model.encode, partial(model.prefill, image_tokens=image_tokens), model.sample, image_tokens)

    def graphs_alone(self) -> Way:
        """The product's encoder and prefill, and branches in recorded steps."""
        product, fast = self.product(), self.fast(graphs=True)
        return Way(product.encode, product.prefill, fast.sample)


# In the order in which they are measured: what is hoped to win before what explains it.
WAYS: dict[str, Callable[[Maker], Way]] = {
    "eager": Maker.product,
    "fused, compiled, graphs": lambda maker: maker.fast(fused=True, compiled=True, graphs=True),
    "fused, compiled, graphs, float8 decoder": lambda maker: maker.fast(
        fused=True, compiled=True, graphs=True, float8_decoder=True
    ),
    "a quarter of the tokens": Maker.merged,
    "a quarter of the tokens, fused, compiled, graphs": lambda maker: maker.fast(
        fused=True, compiled=True, graphs=True, merged=True
    ),
    "graphs": Maker.graphs_alone,
    "rebuilt": Maker.fast,
    "rebuilt, fused": lambda maker: maker.fast(fused=True),
    "rebuilt, compiled": lambda maker: maker.fast(compiled=True),
    "encoder by FlashAttention": lambda maker: maker.encoder_attention(SDPBackend.FLASH_ATTENTION),
    "encoder by cuDNN attention": lambda maker: maker.encoder_attention(SDPBackend.CUDNN_ATTENTION),
    "fused, compiled, graphs of a compiled step": lambda maker: maker.fast(
        fused=True, compiled=True, compiled_step=True, graphs=True
    ),
    "fused, compiled, graphs, float8 decoder and encoder": lambda maker: maker.fast(
        fused=True, compiled=True, graphs=True, float8_decoder=True, float8_encoder=True
    ),
    "fused, compiled by search, graphs": lambda maker: maker.fast(
        fused=True, compiled=True, graphs=True, mode="max-autotune-no-cudagraphs"
    ),
}
BEST = "fused, compiled, graphs"


def reset_compiler() -> None:
    """Forgets what was compiled: ways share code, and many compilations of one function count as a fault."""
    torch._dynamo.reset()
