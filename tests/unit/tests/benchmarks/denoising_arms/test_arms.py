"""The losses of the forms of denoising."""

from __future__ import annotations

import math

import pytest
import torch

from model import Recognizer
from model.training.corruptions import to_crops
from tests.benchmarks.denoising_arms import arms
from tests.benchmarks.denoising_arms.arms import ARMS, Batch, Step, Student, divergence, mislabel

LABELS = [[[20, 21], [22]], [[30]], [[40, 41], [42, 43]], [[50]]]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch() -> Batch:
    return Batch(torch.rand(4, 3, 28, 28, generator=generator(9)) * 255, LABELS)


def make_step(recognizer: Recognizer, seed: int = 0) -> Step:
    torch.manual_seed(0)
    student = Student(recognizer)
    with torch.no_grad():
        student.mask_W.normal_()
    return Step(recognizer, student, generator(seed))


class TestForms:
    @pytest.mark.parametrize("arm", ARMS)
    def test_the_whole_recognizer_learns(self, build_recognizer, arm: str) -> None:
        step = make_step(build_recognizer())
        ARMS[arm](step, make_batch()).backward()
        parameters = {
            name: parameter
            for name, parameter in step.module.named_parameters()
            if "post_layernorm" not in name and "embeddings" not in name
        }
        assert [name for name, value in parameters.items() if value.grad is None] == []
        assert all(value.grad.isfinite().all() for value in parameters.values())

    @pytest.mark.parametrize("arm", ARMS)
    def test_the_same_draw_gives_the_same_loss(self, recognizer: Recognizer, arm: str) -> None:
        with torch.no_grad():
            first, second = (ARMS[arm](make_step(recognizer, 5), make_batch()) for _ in range(2))
        assert torch.equal(first, second)

    def test_two_views_that_do_not_differ_give_the_plain_loss(self, recognizer: Recognizer, monkeypatch) -> None:
        monkeypatch.setattr(arms, "corrupt_each", lambda pixels, share, generator: pixels)
        step, batch = make_step(recognizer), make_batch()
        with torch.no_grad():
            assert step.clean_and_spoilt(batch, 1.0).item() == pytest.approx(step.plain(batch).item(), rel=1e-5)

    def test_a_guide_that_sees_the_same_adds_nothing(self, recognizer: Recognizer, monkeypatch) -> None:
        monkeypatch.setattr(arms, "corrupt_each", lambda pixels, share, generator: pixels)
        step, batch = make_step(recognizer), make_batch()
        with torch.no_grad():
            assert step.guided(batch).item() == pytest.approx(step.plain(batch).item(), rel=1e-5)

    def test_a_guide_that_sees_something_else_adds_its_divergence(self, recognizer: Recognizer, monkeypatch) -> None:
        monkeypatch.setattr(arms, "corrupt_each", lambda pixels, share, generator: 255 - pixels)
        step, batch = make_step(recognizer), make_batch()
        views = torch.cat((255 - batch.pixels_BCHW[:2], batch.pixels_BCHW[2:]))
        with torch.no_grad():
            logits = [
                recognizer.first_logits(recognizer.prepare(to_crops(pixels))) for pixels in (batch.pixels_BCHW, views)
            ]
            expected = step.plain(Batch(views, LABELS)) + divergence(*(of_views[:2] for of_views in logits))
            assert step.guided(batch).item() == pytest.approx(expected.item(), rel=1e-4)

    def test_wrong_labels_change_what_is_read_and_not_what_is_asked_for(
        self, recognizer: Recognizer, monkeypatch
    ) -> None:
        step, seen = make_step(recognizer), []
        monkeypatch.setattr(arms, "_WRONG_TOKEN_SHARE", 1.0)
        monkeypatch.setattr(step, "label_loss", lambda embeds, packed: (seen.append(packed), 0))
        step.relabelled(make_batch())
        clean, (packed,) = step.pack(LABELS), seen
        assert torch.equal(packed.target_M, clean.target_M)
        assert torch.equal(packed.token_ids_BT[clean.segment_BT < 1], clean.token_ids_BT[clean.segment_BT < 1])
        is_other = packed.token_ids_BT != clean.token_ids_BT
        assert is_other[clean.segment_BT > 0].float().mean() > 0.8


class TestMasks:
    def test_without_masked_patches_the_tokens_are_the_encoders(self, recognizer: Recognizer) -> None:
        step, pixels = make_step(recognizer), torch.rand(2, 3, 28, 28)
        with torch.no_grad():
            masked = step.student.encode_masked(pixels, torch.zeros(2, 4, dtype=torch.bool))
            assert torch.equal(masked, recognizer.module.encode_images(pixels))

    def test_what_a_masked_patch_shows_changes_nothing(self, recognizer: Recognizer) -> None:
        """Patch 1 of 2 x 2 is the upper right one."""
        step, pixels = make_step(recognizer), torch.rand(1, 3, 28, 28)
        other = pixels.clone()
        other[:, :, :14, 14:] = 0
        is_masked = torch.tensor([[False, True, False, False]])
        with torch.no_grad():
            assert torch.equal(*(step.student.encode_masked(view, is_masked) for view in (pixels, other)))
            assert not torch.equal(*(recognizer.module.encode_images(view) for view in (pixels, other)))


class TestDivergence:
    def test_it_is_the_sum_over_the_vocabulary(self) -> None:
        clean, spoilt = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
        expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
        assert divergence(clean, spoilt).item() == pytest.approx(expected, rel=1e-5)

    def test_the_clean_view_gets_no_gradient(self) -> None:
        clean, spoilt = (torch.randn(3, 7, generator=generator(seed)).requires_grad_() for seed in (1, 2))
        divergence(clean, spoilt).backward()
        assert clean.grad is None
        assert spoilt.grad.abs().sum() > 0


class TestMislabel:
    def test_no_share_changes_nothing(self) -> None:
        assert mislabel(LABELS, 0.0, generator()) == LABELS

    def test_all_come_from_the_batch_and_have_as_many_tokens(self) -> None:
        of_batch = [label for of_scene in LABELS for label in of_scene]
        misled = mislabel(LABELS, 1.0, generator())
        assert [[len(label) for label in of_scene] for of_scene in misled] == [[2, 1], [1], [2, 2], [1]]
        assert all(label in of_batch for of_scene in misled for label in of_scene)
        assert misled != LABELS
