"""Denoising: the decoder reads corrupted image and label tokens and learns to recover the clean ones.

A share of an image's tokens is replaced by a learned mask embedding, Gaussian noise is added to another share, and a
share of the label tokens that the decoder conditions on becomes random. The label loss still asks for the clean labels;
a small head on the decoder's image positions recovers the clean, normalised embeddings where they were corrupted.

Shape suffixes: B images, N image tokens, D decoder width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class Corruption:
    """How much is corrupted, and what recovering it weighs; all zero is plain NXTP."""

    mask_share: float = 0.0
    """Share of the image tokens that the mask embedding replaces, 0 to 1."""
    noise_share: float = 0.0
    """Share of the image tokens that noise is added to, 0 to 1."""
    noise_std: float = 0.0
    """How strong the noise is, in standard deviations of the image's own tokens."""
    label_share: float = 0.0
    """Share of the label tokens read by the decoder that become random tokens, 0 to 1."""
    weight: float = 0.0
    """Weight of the reconstruction loss; the label loss has 1."""
    picture_share: float = 0.0
    """Share of the pictures that are spoilt before the encoder sees them, 0 to 1: by noise, blur, low light, occlusion
    or JPEG, at a random strength. No loss asks for the clean picture."""

    @property
    def touches_images(self) -> bool:
        return self.mask_share > 0 or (self.noise_share > 0 and self.noise_std > 0)


class PatchDenoiser(nn.Module):
    """The mask embedding and the head that recovers clean image tokens; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mask_embedding_D = nn.Parameter(torch.zeros(width))
        self.head = nn.Linear(width, width)

    def corrupt(
        self, image_embeds_BND: Tensor, corruption: Corruption, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Corrupted image tokens [B, N, D], and where they are corrupted, boolean [B, N].

        Args:
            generator: of the CPU, so that every device draws the same.
        """
        shape, device = image_embeds_BND.shape, image_embeds_BND.device
        draw_BN = torch.rand(shape[:2], generator=generator).to(device)
        noise_BND = torch.randn(shape, generator=generator).to(device, image_embeds_BND.dtype)
        is_masked_BN = draw_BN < corruption.mask_share
        is_noisy_BN = ~is_masked_BN & (draw_BN < corruption.mask_share + corruption.noise_share)
        scale_B11 = image_embeds_BND.detach().std(dim=(1, 2), keepdim=True) * corruption.noise_std
        corrupted_BND = image_embeds_BND + is_noisy_BN[:, :, None] * scale_B11 * noise_BND
        mask_D = self.mask_embedding_D.to(image_embeds_BND.dtype)
        return torch.where(is_masked_BN[:, :, None], mask_D, corrupted_BND), is_masked_BN | is_noisy_BN

    def squared_errors(self, hidden_BND: Tensor, clean_BND: Tensor) -> Tensor:
        """Mean squared error of each recovered token against its clean, normalised embedding, float32 [B, N]."""
        target_BND = F.layer_norm(clean_BND.detach().float(), clean_BND.shape[-1:])
        return (self.head(hidden_BND).float() - target_BND).square().mean(dim=-1)
