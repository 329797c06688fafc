"""The recognizer's losses as one module's forward pass, so that data-parallel wrappers see all of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.nxtp.modeling import RecognizerModel
from model.training.denoising import Corruption, PatchDenoiser
from model.training.objective import PackedLabels, decode_packed, label_log_probs


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums over a batch, float32: of the label tokens' cross-entropy, and of the corrupted image tokens' errors."""

    label_sum: Tensor
    denoise_sum: Tensor


class TrainingModule(nn.Module):
    """The recognizer's module and, where images are corrupted, its denoiser."""

    def __init__(self, recognizer: RecognizerModel, corruption: Corruption, image_tokens: int = 0) -> None:
        """
        Args:
            image_tokens: how many tokens the decoder reads of an image; 0 is all.

        Raises ValueError where the model has fewer, or where they are merged and corrupted: the denoiser recovers the
        tokens of patches.
        """
        super().__init__()
        n_kept = recognizer.config.n_kept_tokens(image_tokens)
        if n_kept < recognizer.config.n_image_tokens and corruption.touches_images:
            raise ValueError(f"image_tokens is {image_tokens}; denoising image tokens needs all of them: expected 0")
        self.image_tokens = image_tokens
        self.recognizer = recognizer
        self.corruption = corruption
        width = recognizer.config.text_config.hidden_size
        self.denoiser = PatchDenoiser(width).to(recognizer.device) if corruption.touches_images else None

    def forward(self, pixel_values_BCHW: Tensor, packed: PackedLabels, generator: torch.Generator) -> Losses:
        """Losses of a batch.

        Args:
            pixel_values_BCHW: normalised floats.
            packed: the images' labels.
            generator: of the CPU; decides what is corrupted.
        """
        clean_BND = self.recognizer.encode_images(pixel_values_BCHW)
        image_embeds_BND = clean_BND
        if self.corruption.label_share:
            vocab_size = self.recognizer.config.text_config.vocab_size
            packed = packed.with_corrupted_labels(self.corruption.label_share, vocab_size, generator)
        if self.denoiser is not None:
            image_embeds_BND, is_corrupted_BN = self.denoiser.corrupt(clean_BND, self.corruption, generator)
        hidden_BLD = decode_packed(self.recognizer, image_embeds_BND, packed, self.image_tokens)
        label_sum = -label_log_probs(self.recognizer, hidden_BLD, packed).sum()
        if self.denoiser is None:
            return Losses(label_sum, label_sum.new_zeros(()))
        errors_BN = self.denoiser.squared_errors(hidden_BLD[:, : clean_BND.shape[1]], clean_BND)
        return Losses(label_sum, (errors_BN * is_corrupted_BN).sum())
