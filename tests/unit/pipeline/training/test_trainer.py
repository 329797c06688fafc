"""One step of training, alone and as two workers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from model.training.denoising import Corruption
from pipeline.errors import TagstreamError
from pipeline.training.batches import BatchMaker
from pipeline.training.examples import Example, Position
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import Trainer, TrainPlan
from tests.fixtures.recognizers.tiny_recognizer import save_tiny_recognizer

N_IMAGES = 8
# The same sums in another order.
GRADIENT_REL, GRADIENT_ABS = 1e-4, 1e-7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_recognizer(tmp_path_factory.mktemp("model"))


def examples() -> list[Example]:
    """Images with one to three labels, so that workers' shares have different numbers of tokens."""
    labels = [("red",), ("green", "traffic light"), ("red", "green", "traffic light")]
    made = []
    for number in range(N_IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        made.append(Example(buffer.getvalue(), labels[number % 3]))
    return made


class GradientTrainer(Trainer):
    """Keeps a step's gradients instead of following them."""

    gradients: dict[str, torch.Tensor]

    def _apply_gradients(self, step: int) -> float:
        self.gradients = {
            name: parameter.grad.clone()
            for name, parameter in self.module.named_parameters()
            if parameter.grad is not None
        }
        return 0.0


def gradients_of(model: str, out: str, images: list[Example], rank: int, n_ranks: int, micro: int = 0) -> Any:
    torch.set_num_threads(1)
    settings = TrainSettings(batch_size=N_IMAGES, micro_batch_size=micro, prompts="fixed", max_labels=8)
    plan = TrainPlan(
        out=out, start_model=model, shards=[], val_shards=[], settings=settings, asked={}, device="cpu", n_threads=1
    )
    trainer = GradientTrainer(plan, rank, n_ranks, lambda report: None)
    maker = BatchMaker(trainer.labeler, settings, rank, n_ranks)
    trainer.step(0, maker.make(0, images, Position()))
    return trainer.gradients


def worker(rank: int, model: str, out: str, rendezvous: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    # Unequal shares of labels: the mean is over the tokens of both.
    gradients = gradients_of(model, out, examples()[rank::2], rank, 2)
    if rank == 0:
        torch.save(gradients, Path(out) / "gradients.pt")
    dist.destroy_process_group()


def assert_equal(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=GRADIENT_REL, atol=GRADIENT_ABS)


@pytest.mark.long
def test_two_gloo_workers_give_the_gradients_of_one_with_the_same_global_batch(model: str, tmp_path: Path) -> None:
    alone = gradients_of(model, str(tmp_path / "alone"), examples(), 0, 1)
    mp.spawn(worker, args=(model, str(tmp_path), str(tmp_path / "rendezvous")), nprocs=2)
    together = torch.load(tmp_path / "gradients.pt", weights_only=True)
    assert max(float(gradient.abs().max()) for gradient in alone.values()) > 1e-3
    assert_equal(together, alone)


def test_micro_batches_give_the_gradients_of_the_whole_batch(model: str, tmp_path: Path) -> None:
    whole = gradients_of(model, str(tmp_path), examples(), 0, 1)
    assert_equal(gradients_of(model, str(tmp_path), examples(), 0, 1, micro=3), whole)


def test_images_that_cannot_be_read_are_left_out_of_the_step(model: str, tmp_path: Path) -> None:
    readable = gradients_of(model, str(tmp_path), examples(), 0, 1)
    damaged = [Example(b"no image", ("red",)), *examples()]
    assert_equal(gradients_of(model, str(tmp_path), damaged, 0, 1), readable)


def test_a_step_without_a_readable_image_changes_nothing(model: str, tmp_path: Path) -> None:
    gradients = gradients_of(model, str(tmp_path), [Example(b"no image", ("red",))], 0, 1)
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients.values())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (TrainSettings(image_tokens=5), r"image_tokens is 5; this model has \d+ image tokens, expected 0"),
        (
            TrainSettings(image_tokens=2, corruption=Corruption(mask_share=0.3)),
            "denoising image tokens needs all",
        ),
    ],
)
def test_image_tokens_that_cannot_be_are_refused(
    model: str, tmp_path: Path, settings: TrainSettings, sentence: str
) -> None:
    plan = TrainPlan(
        out=str(tmp_path),
        start_model=model,
        shards=[],
        val_shards=[],
        settings=settings,
        asked={},
        device="cpu",
        n_threads=1,
    )
    with pytest.raises(TagstreamError, match=sentence):
        Trainer(plan, 0, 1, lambda report: None)


def test_what_is_corrupted_depends_on_seed_and_step_alone(model: str, tmp_path: Path) -> None:
    corruption = Corruption(mask_share=0.3, noise_share=0.2, noise_std=1.0, label_share=0.2, weight=0.5)

    def losses(step: int) -> tuple[float, float]:
        settings = TrainSettings(batch_size=N_IMAGES, prompts="fixed", corruption=corruption)
        plan = TrainPlan(
            out=str(tmp_path),
            start_model=model,
            shards=[],
            val_shards=[],
            settings=settings,
            asked={},
            device="cpu",
            n_threads=1,
        )
        trainer = GradientTrainer(plan, 0, 1, lambda report: None)
        trainer.step(step, BatchMaker(trainer.labeler, settings, 0, 1).make(step, examples(), Position()))
        return trainer._meter.label_sum, trainer._meter.denoise

    assert losses(3) == losses(3)
    assert losses(3) != losses(4)
