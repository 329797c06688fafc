"""The forms of denoising that are compared, each as the loss of one step.

Every form sees as many pictures a step, but those of `TWICE`. A form of two views sees half as many scenes, each twice.

Shape suffixes: B images of a batch, V vocabulary, N image tokens, D decoder width, W encoder width, C
channels, H, Y, X: height and width in pixels and in patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import Recognizer
from model.training.corruptions import corrupt_each, to_crops
from model.training.denoising import PatchDenoiser
from model.training.label_tokens import label_token_ids
from model.training.objective import PackedLabels, decode_packed, label_log_probs, pack_restarting

_CORRUPTED_SHARE = 0.5
_CONSISTENCY_WEIGHT = 1.0
_WRONG_LABEL_SHARE, _WRONG_TOKEN_SHARE = 0.1, 0.1
_MASK_SHARE, _RECONSTRUCTION_WEIGHT = 0.125, 0.1


class Student(nn.Module):
    """A recognizer that learns, and what masked patches need: an embedding in their place, a head that recovers."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.module = recognizer.module
        config = recognizer.config
        self.denoiser = PatchDenoiser(config.text_config.hidden_size)
        self.mask_W = nn.Parameter(torch.zeros(config.vision_config.hidden_size))

    def encode_masked(self, pixel_values_BCHW: Tensor, is_masked_BN: Tensor) -> Tensor:
        """Image tokens [B, N, D] of pictures whose masked patches the encoder does not see."""

        def mask(layer: nn.Module, inputs: object, patches_BWYX: Tensor) -> Tensor:
            is_masked_B1YX = is_masked_BN.view(len(patches_BWYX), 1, *patches_BWYX.shape[2:])
            return torch.where(is_masked_B1YX, self.mask_W[:, None, None], patches_BWYX)

        handle = self.module.vision_encoder.embeddings.patch_embedding.register_forward_hook(mask)
        try:
            return self.module.encode_images(pixel_values_BCHW)
        finally:
            handle.remove()


@dataclass(frozen=True, slots=True)
class Batch:
    """Scenes of a step: pixels [B, C, H, W] from 0 to 255, and the token ids of each scene's labels."""

    pixels_BCHW: Tensor
    labels: list[list[list[int]]]

    def first(self, n_scenes: int) -> Batch:
        return Batch(self.pixels_BCHW[:n_scenes], self.labels[:n_scenes])


class Step:
    """What the forms' losses are computed with."""

    def __init__(self, recognizer: Recognizer, student: Student, generator: torch.Generator) -> None:
        self.recognizer, self.student, self.generator = recognizer, student, generator
        self.module = recognizer.module
        self.answer_row = recognizer.config.n_image_tokens + len(recognizer.config.prompt_ids) - 1

    def pack(self, labels: Sequence[Sequence[Sequence[int]]]) -> PackedLabels:
        config = self.recognizer.config
        return pack_restarting([config.prompt_ids] * len(labels), labels, config.delimiter_id, config.n_image_tokens)

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        return self.module.encode_images(self.recognizer.prepare(to_crops(pixels_BCHW)))

    def label_loss(self, image_embeds_BND: Tensor, packed: PackedLabels) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of the label tokens, and the hidden states it comes from."""
        hidden_BLD = decode_packed(self.module, image_embeds_BND, packed)
        return -label_log_probs(self.module, hidden_BLD, packed).mean(), hidden_BLD

    def plain(self, batch: Batch) -> Tensor:
        return self.label_loss(self.encode(batch.pixels_BCHW), self.pack(batch.labels))[0]

    def augmented(self, batch: Batch) -> Tensor:
        """Half of the pictures are spoilt."""
        pixels_BCHW = corrupt_each(batch.pixels_BCHW, _CORRUPTED_SHARE, self.generator)
        return self.label_loss(self.encode(pixels_BCHW), self.pack(batch.labels))[0]

    def guided(self, batch: Batch) -> Tensor:
        """As `augmented`; the spoilt pictures also learn the first tokens' distribution that their clean views have.

        No gradient flows to the clean views, so that they cost a forward pass alone.
        """
        n_spoilt = round(len(batch.labels) * _CORRUPTED_SHARE)
        clean_BCHW = batch.pixels_BCHW[:n_spoilt]
        spoilt_BCHW = corrupt_each(clean_BCHW, 1.0, self.generator)
        embeds_BND = self.encode(torch.cat((spoilt_BCHW, batch.pixels_BCHW[n_spoilt:])))
        loss, hidden_BLD = self.label_loss(embeds_BND, self.pack(batch.labels))
        with torch.no_grad():
            clean = self.module.prefill(self.recognizer.prepare(to_crops(clean_BCHW)))
            clean_BV = self.module.token_logits(clean.answer_BD)
        spoilt_BV = self.module.token_logits(hidden_BLD[:n_spoilt, self.answer_row])
        return loss + _CONSISTENCY_WEIGHT * divergence(clean_BV, spoilt_BV)

    def clean_and_spoilt(self, clean: Batch, weight: float) -> Tensor:
        """Each scene clean and spoilt; the spoilt view also learns the clean one's distribution of first tokens.

        Args:
            weight: of that; 0 is augmentation alone.
        """
        spoilt_BCHW = corrupt_each(clean.pixels_BCHW, 1.0, self.generator)
        packed = self.pack(clean.labels * 2)
        loss, hidden_BLD = self.label_loss(self.encode(torch.cat((clean.pixels_BCHW, spoilt_BCHW))), packed)
        clean_BV, spoilt_BV = self.module.token_logits(hidden_BLD[:, self.answer_row]).chunk(2)
        return loss + weight * divergence(clean_BV, spoilt_BV)

    def relabelled(self, batch: Batch) -> Tensor:
        """The decoder reads wrong labels and random tokens, and still has to write the right ones."""
        packed, vocab_size = self.pack(batch.labels), self.recognizer.config.text_config.vocab_size
        misled = self.pack(mislabel(batch.labels, _WRONG_LABEL_SHARE, self.generator))
        packed = replace(packed, token_ids_BT=misled.token_ids_BT)
        packed = packed.with_corrupted_labels(_WRONG_TOKEN_SHARE, vocab_size, self.generator)
        return self.label_loss(self.encode(batch.pixels_BCHW), packed)[0]

    def full_and_masked(self, full: Batch) -> Tensor:
        """Each scene in full and with masked patches, whose clean tokens are recovered from the encoder's output."""
        values_BCHW = self.recognizer.prepare(to_crops(full.pixels_BCHW))
        clean_BND = self.module.encode_images(values_BCHW)
        is_masked_BN = torch.rand(clean_BND.shape[:2], generator=self.generator) < _MASK_SHARE
        masked_BND = self.student.encode_masked(values_BCHW, is_masked_BN)
        errors_BN = self.student.denoiser.squared_errors(masked_BND, clean_BND)
        recovered = (errors_BN * is_masked_BN).sum() / is_masked_BN.sum().clamp(min=1)
        loss, _ = self.label_loss(torch.cat((clean_BND, masked_BND)), self.pack(full.labels * 2))
        return loss + _RECONSTRUCTION_WEIGHT * recovered


def _half(batch: Batch) -> Batch:
    return batch.first(len(batch.labels) // 2)


Form = Callable[[Step, Batch], Tensor]
# Each computes with as many pictures a step as the batch has scenes.
EQUAL: dict[str, Form] = {
    "plain": Step.plain,
    "augmentation": Step.augmented,
    "consistency, guided": Step.guided,
    "masked tokens": lambda step, batch: step.full_and_masked(_half(batch)),
    "consistency": lambda step, batch: step.clean_and_spoilt(_half(batch), _CONSISTENCY_WEIGHT),
    "label tokens": Step.relabelled,
}
TWICE: dict[str, Form] = {
    "augmentation, twice": lambda step, batch: step.clean_and_spoilt(batch, 0.0),
    "consistency, twice": lambda step, batch: step.clean_and_spoilt(batch, _CONSISTENCY_WEIGHT),
    "masked tokens, twice": Step.full_and_masked,
}
"""Forms that see both views of all scenes, for twice the compute."""
ARMS = EQUAL | TWICE


def divergence(clean_BV: Tensor, spoilt_BV: Tensor) -> Tensor:
    """Mean KL divergence of the spoilt views' distribution from the clean ones', which gets no gradient."""
    target_BV = clean_BV.detach().log_softmax(dim=-1)
    return F.kl_div(spoilt_BV.log_softmax(dim=-1), target_BV, reduction="batchmean", log_target=True)


def mislabel(labels: list[list[list[int]]], share: float, generator: torch.Generator) -> list[list[list[int]]]:
    """A share of the labels replaced by others of the batch that have as many tokens, so that the layout stays."""
    by_length: dict[int, list[list[int]]] = {}
    for label in (label for of_scene in labels for label in of_scene):
        by_length.setdefault(len(label), []).append(label)

    def read(label: list[int]) -> list[int]:
        if float(torch.rand((), generator=generator)) >= share:
            return label
        others = by_length[len(label)]
        return others[int(torch.randint(len(others), (), generator=generator))]

    return [[read(label) for label in of_scene] for of_scene in labels]


def tokens_of(recognizer: Recognizer, names: Sequence[str]) -> list[list[int]]:
    """The token ids of a scene's labels."""
    return [label_token_ids(recognizer.tokenizer, name, recognizer.config) for name in names]
