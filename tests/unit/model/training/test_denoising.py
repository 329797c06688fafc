"""Corruption of image and label tokens, and the losses that ask for what was there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model import Recognizer
from model.training.denoising import Corruption, PatchDenoiser
from model.training.objective import PackedLabels, decode_packed, label_log_probs, pack_restarting
from model.training.training_module import Losses, TrainingModule

WIDTH = 32
LABELS = [[[20, 21], [22]], [[30]], [[40, 41], [42, 43]]]


@pytest.fixture
def denoiser() -> PatchDenoiser:
    torch.manual_seed(0)
    denoiser = PatchDenoiser(WIDTH)
    with torch.no_grad():
        denoiser.mask_embedding_D.normal_()
    return denoiser


def embeddings(n_images: int = 40, n_tokens: int = 50, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n_images, n_tokens, WIDTH, generator=torch.Generator().manual_seed(5))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def packed_labels(recognizer: Recognizer) -> PackedLabels:
    config = recognizer.config
    return pack_restarting([config.prompt_ids] * len(LABELS), LABELS, config.delimiter_id, config.n_image_tokens)


def plain_label_sum(recognizer: Recognizer, pixels: Tensor, packed: PackedLabels) -> Tensor:
    """The label loss without anything of denoising."""
    hidden = decode_packed(recognizer.module, recognizer.module.encode_images(pixels), packed)
    return -label_log_probs(recognizer.module, hidden, packed).sum()


@pytest.fixture
def losses_of(recognizer: Recognizer, make_pixels) -> Callable[..., Losses]:
    """A function that gives the losses of three images; what is corrupted as keywords."""

    def compute(seed: int = 0, **corruption: float) -> Losses:
        torch.manual_seed(1)
        module = TrainingModule(recognizer.module, Corruption(**corruption))
        with torch.no_grad():
            return module(make_pixels(3), packed_labels(recognizer), generator(seed))

    return compute


class TestCorruption:
    """Which image tokens are touched, and how."""

    @pytest.mark.parametrize(("mask_share", "noise_share"), [(0.3, 0.0), (0.0, 0.3), (0.2, 0.4), (0.5, 0.5)])
    def test_the_shares_asked_for_are_hit(self, denoiser: PatchDenoiser, mask_share: float, noise_share: float) -> None:
        clean = embeddings()
        corruption = Corruption(mask_share=mask_share, noise_share=noise_share, noise_std=1.0)
        corrupted, is_corrupted = denoiser.corrupt(clean, corruption, generator())
        is_masked = (corrupted == denoiser.mask_embedding_D).all(dim=-1)
        # 2000 draws: the deviation of a share is at most 0.011.
        assert is_masked.float().mean().item() == pytest.approx(mask_share, abs=0.045)
        assert (is_corrupted & ~is_masked).float().mean().item() == pytest.approx(noise_share, abs=0.045)

    def test_masked_places_hold_the_mask_embedding(self, denoiser: PatchDenoiser) -> None:
        corrupted, is_corrupted = denoiser.corrupt(embeddings(), Corruption(mask_share=0.5), generator())
        assert (corrupted[is_corrupted] == denoiser.mask_embedding_D).all()

    @pytest.mark.parametrize("noise_std", [0.0, 0.7])
    def test_all_other_places_are_unchanged(self, denoiser: PatchDenoiser, noise_std: float) -> None:
        clean = embeddings()
        corruption = Corruption(mask_share=0.3, noise_share=0.3, noise_std=noise_std)
        corrupted, is_corrupted = denoiser.corrupt(clean, corruption, generator())
        assert torch.equal(corrupted[~is_corrupted], clean[~is_corrupted])

    def test_noise_is_as_strong_as_asked_in_each_images_own_measure(self, denoiser: PatchDenoiser) -> None:
        clean = torch.cat((embeddings(1, 400), embeddings(1, 400, scale=100)))
        corrupted, _ = denoiser.corrupt(clean, Corruption(noise_share=1.0, noise_std=0.5), generator())
        strengths = (corrupted - clean).std(dim=(1, 2)) / clean.std(dim=(1, 2))
        # 12,800 draws an image: 0.5 with a deviation of 0.003.
        assert strengths.tolist() == pytest.approx([0.5, 0.5], abs=0.015)

    def test_the_same_seed_corrupts_the_same(self, denoiser: PatchDenoiser) -> None:
        corruption = Corruption(mask_share=0.3, noise_share=0.3, noise_std=1.0)
        first, second = (denoiser.corrupt(embeddings(), corruption, generator(7)) for _ in range(2))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])

    def test_another_seed_corrupts_other_places(self, denoiser: PatchDenoiser) -> None:
        first, second = (denoiser.corrupt(embeddings(), Corruption(mask_share=0.3), generator(s))[1] for s in (1, 2))
        assert not torch.equal(first, second)

    def test_no_share_corrupts_nothing(self, denoiser: PatchDenoiser) -> None:
        clean = embeddings()
        corrupted, is_corrupted = denoiser.corrupt(clean, Corruption(), generator())
        assert torch.equal(corrupted, clean)
        assert not is_corrupted.any()

    def test_a_whole_share_of_the_mask_leaves_no_token_of_the_image(self, denoiser: PatchDenoiser) -> None:
        corrupted, is_corrupted = denoiser.corrupt(embeddings(), Corruption(mask_share=1.0), generator())
        assert is_corrupted.all()
        assert (corrupted == denoiser.mask_embedding_D).all()

    def test_tokens_of_half_precision_stay_so(self, denoiser: PatchDenoiser) -> None:
        corruption = Corruption(mask_share=0.3, noise_share=0.3, noise_std=1.0)
        corrupted, _ = denoiser.corrupt(embeddings().bfloat16(), corruption, generator())
        assert corrupted.dtype == torch.bfloat16

    @pytest.mark.parametrize(
        ("corruption", "touches"),
        [
            (Corruption(), False),
            (Corruption(mask_share=0.1), True),
            (Corruption(noise_share=0.1, noise_std=0.1), True),
            (Corruption(noise_share=0.1), False),
            (Corruption(noise_std=0.1), False),
            (Corruption(label_share=0.5, weight=1.0), False),
        ],
    )
    def test_it_is_known_whether_images_are_touched(self, corruption: Corruption, touches: bool) -> None:
        assert corruption.touches_images is touches


class TestReconstruction:
    """The error of the recovered tokens."""

    def test_it_is_measured_against_the_normalised_clean_tokens(self, denoiser: PatchDenoiser) -> None:
        clean, hidden = embeddings(2, 3, scale=7), embeddings(2, 3)
        errors = denoiser.squared_errors(hidden, clean)
        for image in range(2):
            for token in range(3):
                values = clean[image, token].double()
                centred = values - values.mean()
                target = centred / (centred.square().mean() + 1e-5).sqrt()
                recovered = denoiser.head.weight.double() @ hidden[image, token].double()
                recovered = recovered + denoiser.head.bias.double()
                expected = (recovered - target).square().mean().item()
                assert errors[image, token].item() == pytest.approx(expected, rel=1e-5)

    def test_the_clean_tokens_get_no_gradient_from_being_the_target(self, denoiser: PatchDenoiser) -> None:
        clean, hidden = embeddings(2, 3).requires_grad_(), embeddings(2, 3).requires_grad_()
        denoiser.squared_errors(hidden, clean).sum().backward()
        assert clean.grad is None
        assert hidden.grad.abs().sum() > 0

    def test_errors_of_half_precision_are_measured_in_single(self, denoiser: PatchDenoiser) -> None:
        errors = denoiser.bfloat16().squared_errors(embeddings(2, 3).bfloat16(), embeddings(2, 3).bfloat16())
        assert errors.dtype == torch.float32


class TestTrainingModule:
    """The losses of a forward pass."""

    def test_no_corruption_gives_exactly_the_plain_label_loss(
        self, recognizer: Recognizer, losses_of: Callable[..., Losses], make_pixels
    ) -> None:
        with torch.no_grad():
            expected = plain_label_sum(recognizer, make_pixels(3), packed_labels(recognizer))
        losses = losses_of()
        assert torch.equal(losses.label_sum, expected)
        assert losses.denoise_sum == 0

    def test_without_touched_images_there_is_no_denoiser(self, recognizer: Recognizer) -> None:
        module = TrainingModule(recognizer.module, Corruption(label_share=0.5, weight=1.0))
        assert module.denoiser is None
        assert {name.partition(".")[0] for name, _ in module.named_parameters()} == {"recognizer"}

    def test_corrupted_labels_change_the_loss_and_leave_the_targets(
        self, recognizer: Recognizer, losses_of: Callable[..., Losses], make_pixels
    ) -> None:
        packed, config = packed_labels(recognizer), recognizer.config
        corrupted = packed.with_corrupted_labels(0.6, config.text_config.vocab_size, generator(3))
        with torch.no_grad():
            expected = plain_label_sum(recognizer, make_pixels(3), corrupted)
        label_sum = losses_of(seed=3, label_share=0.6).label_sum
        assert torch.equal(label_sum, expected)
        assert label_sum != losses_of().label_sum

    def test_the_decoder_reads_the_corrupted_image(self, losses_of: Callable[..., Losses]) -> None:
        assert losses_of(mask_share=0.5).label_sum != losses_of().label_sum

    def test_the_same_seed_gives_the_same_losses(self, losses_of: Callable[..., Losses]) -> None:
        shares = {"mask_share": 0.3, "noise_share": 0.3, "noise_std": 1.0, "label_share": 0.3}
        first, second = losses_of(seed=4, **shares), losses_of(seed=4, **shares)
        assert torch.equal(first.label_sum, second.label_sum)
        assert torch.equal(first.denoise_sum, second.denoise_sum)

    def test_only_corrupted_places_count_in_the_reconstruction(self, recognizer: Recognizer, make_pixels) -> None:
        torch.manual_seed(1)
        corruption = Corruption(mask_share=0.4, noise_share=0.2, noise_std=1.0)
        module, packed = TrainingModule(recognizer.module, corruption), packed_labels(recognizer)
        with torch.no_grad():
            losses = module(make_pixels(3), packed, generator(2))
            clean = recognizer.module.encode_images(make_pixels(3))
            corrupted, is_corrupted = module.denoiser.corrupt(clean, corruption, generator(2))
            hidden = decode_packed(recognizer.module, corrupted, packed)
            errors = module.denoiser.squared_errors(hidden[:, : clean.shape[1]], clean)
        expected = sum(errors[tuple(place)].item() for place in is_corrupted.nonzero())
        assert 0 < is_corrupted.sum() < is_corrupted.numel()
        assert losses.denoise_sum.item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("loss", ["label_sum", "denoise_sum"])
    def test_both_losses_teach_the_mask_embedding(self, build_recognizer, make_pixels, loss: str) -> None:
        recognizer = build_recognizer()
        module = TrainingModule(recognizer.module, Corruption(mask_share=0.5))
        losses = module(make_pixels(3), packed_labels(recognizer), generator())
        getattr(losses, loss).backward()
        assert module.denoiser.mask_embedding_D.grad.abs().sum() > 0

    def test_the_reconstruction_teaches_the_head_and_the_decoder_but_not_the_output_rows(
        self, build_recognizer, make_pixels
    ) -> None:
        recognizer = build_recognizer()
        module = TrainingModule(recognizer.module, Corruption(mask_share=0.5))
        module(make_pixels(3), packed_labels(recognizer), generator()).denoise_sum.backward()
        assert module.denoiser.head.weight.grad.abs().sum() > 0
        assert recognizer.module.decoder.model.layers[0].mlp.down_proj.weight.grad.abs().sum() > 0
        assert recognizer.module.decoder.lm_head.weight.grad is None
