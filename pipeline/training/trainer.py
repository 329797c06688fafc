"""The training loop of one worker: the labelling actors' class, whose recognizer learns."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.training.objective import pack_restarting
from model.training.optimization import choose_trainable, learning_rate, make_optimizers, train_rows_only
from model.training.training_module import Losses, TrainingModule
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.errors import TagstreamError
from pipeline.settings.labelling import LabelSettings, resolve_dtype
from pipeline.sources.shard import Shard
from pipeline.training.batches import BatchMaker, MicroBatch, StepBatch
from pipeline.training.checkpoints import Checkpoints, TrainingState, optimizer_tensors, restore_optimizers
from pipeline.training.evaluation import Evaluation
from pipeline.training.examples import ExampleStream, Position, TeacherPlan
from pipeline.training.recall_sum import MEASURES, QUALITIES, RECALL_AT
from pipeline.training.settings import TrainSettings

Report = Callable[[dict[str, Any]], None]
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPlan:
    """What every worker of a training job is told."""

    out: str
    start_model: str
    shards: list[Shard]
    val_shards: list[Shard]
    settings: TrainSettings
    asked: dict[str, Any]
    """All that decides the result, as plain values; a run is resumed with the same alone."""
    device: str
    n_threads: int
    teacher: TeacherPlan | None = None
    labeler_class: type[Labeler] = Labeler


@dataclass(slots=True)
class _Meter:
    """Sums since the last row of the metrics."""

    label_sum: float = 0.0
    n_targets: float = 0.0
    denoise: float = 0.0
    gradient_norm: float = 0.0
    n_steps: int = 0
    n_images: int = 0
    n_unreadable: int = 0
    waited_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)


class Trainer:
    """Trains from the last whole checkpoint of a run, or from its start, to its last step."""

    def __init__(self, plan: TrainPlan, rank: int, n_ranks: int, report: Report) -> None:
        self.plan, self.settings = plan, plan.settings
        self._rank, self._n_ranks, self._report = rank, n_ranks, report
        self.checkpoints = Checkpoints(plan.out)
        whole = self.checkpoints.steps()
        self.state = self._restored_state(whole[-1]) if whole else self._first_state()
        model = self.checkpoints.folder(whole[-1]) if whole else plan.start_model
        self.labeler = plan.labeler_class(self._labeler_config(model))
        torch.manual_seed(self.settings.seed)
        self.module = self._training_module()
        self._choose_trainable()
        self._names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        self.optimizers = make_optimizers(
            [self.module],
            self.settings.optimizer,
            weight_decay=self.settings.weight_decay,
            betas=(self.settings.beta1, self.settings.beta2),
            eps=self.settings.eps,
        )
        self._scaler = torch.amp.GradScaler(plan.device, enabled=self._precision == "float16")
        if whole:
            self._restore_tensors(whole[-1])
        self._parallel = self._wrapped()
        self._evaluation = Evaluation(plan.val_shards, self.settings, rank, n_ranks)
        self._meter = _Meter()
        self._seconds_before = self.state.seconds
        self._started = time.perf_counter()

    def run(self) -> None:
        """Trains until the last step is done, checkpointing on the way."""
        if self.state.step >= self.settings.steps:
            return
        stream = ExampleStream(self.plan.shards, self.settings, self._rank, self._n_ranks, self.plan.teacher)
        maker = BatchMaker(self.labeler, self.settings, self._rank, self._n_ranks)
        batches = maker.steps(stream, self.state.step, self.state.positions[self._rank])
        step, waiting_since = self.state.step, time.perf_counter()
        for batch in batches:
            self._meter.waited_s += time.perf_counter() - waiting_since
            self.step(step, batch)
            step += 1
            self._after_step(step, batch.position)
            if step == self.settings.steps:
                return
            waiting_since = time.perf_counter()

    def step(self, step: int, batch: StepBatch) -> None:
        """One step of the optimizer, with this worker's share of the batch."""
        rate = learning_rate(
            step,
            peak=self.settings.learning_rate,
            warmup_steps=self.settings.warmup_steps,
            n_steps=self.settings.steps,
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        n_images, n_targets = self._total([batch.n_images, batch.n_targets])
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step * self._n_ranks + self._rank)
        micro_batches = batch.micro_batches or [self._empty_batch()]
        for place, micro_batch in enumerate(micro_batches):
            is_last = place == len(micro_batches) - 1
            with self._gradients_shared(is_last), self._computing():
                losses = self._forward(micro_batch, generator)
                loss = self._loss(losses, n_images, n_targets)
            self._scaler.scale(loss * self._n_ranks).backward()  # type: ignore[no-untyped-call]
            self._meter.label_sum += losses.label_sum.item()
            self._meter.denoise += losses.denoise_sum.item() / max(1.0, self._n_corrupted(batch.n_images))
        self._meter.gradient_norm = self._apply_gradients(step)
        self._meter.n_targets += batch.n_targets
        self._meter.n_images += batch.n_images
        self._meter.n_unreadable += batch.n_unreadable
        self._meter.n_steps += 1

    def _forward(self, batch: MicroBatch, generator: torch.Generator) -> Losses:
        pixel_values = self.labeler.recognizer.prepare(list(batch.crops_BHWC))
        return self._parallel(pixel_values, batch.packed.to(pixel_values.device), generator)

    def _loss(self, losses: Losses, n_images: float, n_targets: float) -> Tensor:
        """A micro-batch's part of the step's mean loss: mean over all workers' label tokens, and corrupted tokens."""
        loss = losses.label_sum / max(1.0, n_targets)
        if self.module.denoiser is None:
            return loss
        return loss + self.settings.corruption.weight * losses.denoise_sum / max(1.0, self._n_corrupted(n_images))

    def _n_corrupted(self, n_images: float) -> float:
        """How many image tokens are corrupted on average."""
        corruption = self.settings.corruption
        share = corruption.mask_share + corruption.noise_share
        return n_images * self.labeler.recognizer.config.n_image_tokens * share

    def _apply_gradients(self, step: int) -> float:
        for optimizer in self.optimizers:
            self._scaler.unscale_(optimizer)
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        limit = self.settings.clip_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(parameters, limit))
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                self._scaler.step(optimizer)
        elif not self._scaler.is_enabled():
            raise TagstreamError(
                f"the gradient of step {step} is not finite; resume from the last checkpoint with a lower "
                "learning_rate, or precision float32"
            )
        self._scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return norm

    def _after_step(self, step: int, position: Position) -> None:
        settings = self.settings
        is_end = step == settings.steps
        recalls: dict[str, float | None] = {}
        if self.plan.val_shards and (step % settings.eval_every == 0 or is_end):
            recalls = self._evaluate(step)
        if step % settings.log_every == 0 or recalls or is_end:
            self._log(step, recalls)
        if step % settings.checkpoint_every == 0 or is_end:
            self._checkpoint(step, position)

    def _evaluate(self, step: int) -> dict[str, float | None]:
        self._report({"phase": "evaluating"})
        means = self._evaluation.measure(self.labeler, self._total)
        measured = [value for name in QUALITIES if (value := means[name]) is not None]
        # One k alone may be reached early, and then tells the models after it apart no more.
        mean = sum(measured) / len(measured) if measured else None
        if mean is not None and (self.state.best_recall is None or mean >= self.state.best_recall):
            self.state = replace(self.state, best_step=step, best_recall=mean)
        return means

    def _log(self, step: int, recalls: dict[str, float | None]) -> None:
        meter, now = self._meter, time.perf_counter()
        label_sum, n_targets, denoise, n_images, n_unreadable = self._total(
            [meter.label_sum, meter.n_targets, meter.denoise, meter.n_images, meter.n_unreadable]
        )
        elapsed_s = max(1e-9, now - meter.started)
        row = {
            "step": step,
            "label_loss": label_sum / max(1.0, n_targets),
            "denoise_loss": denoise / max(1, meter.n_steps) / self._n_ranks
            if self.module.denoiser is not None
            else None,
            "learning_rate": self.optimizers[0].param_groups[0]["lr"],
            "gradient_norm": meter.gradient_norm,
            "images_per_s": n_images / elapsed_s,
            "steps_per_s": meter.n_steps / elapsed_s,
            "wait_share": meter.waited_s / elapsed_s,
            "n_unreadable": int(n_unreadable),
            "seconds": self._seconds_before + now - self._started,
            **{name: recalls.get(name) for name in MEASURES},
        }
        self.state.metrics.append(row)
        self._report({"phase": "training", **row})
        self._meter = _Meter()

    def _checkpoint(self, step: int, position: Position) -> None:
        positions = self._gathered(position)
        self.state = replace(
            self.state,
            step=step,
            positions=positions,
            seconds=self._seconds_before + time.perf_counter() - self._started,
        )
        if self._rank == 0:
            tensors = {
                **optimizer_tensors(self.optimizers, self._names),
                **{f"scaler//{name}": torch.tensor(value) for name, value in self._scaler.state_dict().items()},
            }
            if self.module.denoiser is not None:
                tensors |= {f"denoiser//{name}": value for name, value in self.module.denoiser.state_dict().items()}
            self.checkpoints.write(self.labeler.recognizer, self.state, tensors)
            self.checkpoints.prune(self.settings.keep_checkpoints, self.state.best_step)
        if self._n_ranks > 1:
            dist.barrier()

    def _restored_state(self, step: int) -> TrainingState:
        state = self.checkpoints.read_state(step)
        if len(state.positions) != self._n_ranks:
            raise TagstreamError(
                f"{self.plan.out} was trained by {len(state.positions)} workers, not {self._n_ranks}; "
                "resume with as many"
            )
        return state

    def _first_state(self) -> TrainingState:
        return TrainingState(step=0, positions=[Position()] * self._n_ranks, settings=self.plan.asked)

    def _restore_tensors(self, step: int) -> None:
        tensors = self.checkpoints.read_tensors(step)
        scaler = {
            name.partition("//")[2]: value.item() for name, value in tensors.items() if name.startswith("scaler//")
        }
        denoiser = {name.partition("//")[2]: value for name, value in tensors.items() if name.startswith("denoiser//")}
        restore_optimizers(self.optimizers, self._names, tensors)
        if scaler:
            self._scaler.load_state_dict(scaler)
        if self.module.denoiser is not None:
            self.module.denoiser.load_state_dict(denoiser)

    def _training_module(self) -> TrainingModule:
        settings = self.settings
        try:
            return TrainingModule(self.labeler.recognizer.module, settings.corruption, settings.image_tokens)
        except ValueError as error:
            raise TagstreamError(str(error)) from error

    def _choose_trainable(self) -> None:
        recognizer, rows = self.module.recognizer, self.settings.embedding_rows
        try:
            choose_trainable(recognizer, self.settings.trainable)
        except ValueError as error:
            raise TagstreamError(f"the setting trainable: {error}") from error
        if rows:
            known = self.labeler.recognizer.tokenizer.get_vocab()
            if unknown := [token for token in rows if token not in known]:
                raise TagstreamError(f"embedding_rows names tokens that the model does not have: {unknown}")
            train_rows_only(recognizer.decoder.model.embed_tokens, [known[token] for token in rows])

    def _labeler_config(self, model: str) -> LabelerConfig:
        settings = LabelSettings(top_k=max(RECALL_AT), image_tokens=self.settings.image_tokens)
        return LabelerConfig.of(
            model, settings, dtype="float32", device=self.plan.device, n_threads=self.plan.n_threads
        )

    @property
    def _precision(self) -> str:
        return resolve_dtype(self.settings.precision, self.plan.device)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """The forward pass's precision and kernels."""
        dtype = _AUTOCAST.get(self._precision)
        with contextlib.ExitStack() as stack:
            if dtype is not None:
                stack.enter_context(torch.autocast(self.plan.device, dtype=dtype))
            if self.plan.device == "cpu":
                # The CPU's fused attention is slow backwards: a step of the demo's model took 1.2 times as long.
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield

    def _wrapped(self) -> nn.Module:
        if self._n_ranks == 1:
            return self.module
        return nn.parallel.DistributedDataParallel(self.module, gradient_as_bucket_view=True)

    def _gradients_shared(self, is_last: bool) -> AbstractContextManager[Any]:
        """Workers exchange gradients with the last micro-batch of a step only."""
        if isinstance(self._parallel, nn.parallel.DistributedDataParallel) and not is_last:
            return self._parallel.no_sync()
        return nullcontext()

    def _empty_batch(self) -> MicroBatch:
        """Stands in where none of a step's images could be read: the workers must step together."""
        config, size = self.labeler.recognizer.config, self.labeler.preprocessor.image_size
        packed = pack_restarting([config.prompt_ids], [[]], config.delimiter_id, config.n_image_tokens)
        return MicroBatch(np.zeros((1, size, size, 3), np.uint8), packed)

    def _total(self, values: list[float]) -> list[float]:
        """Values summed over all workers."""
        if self._n_ranks == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.labeler.recognizer.device)
        dist.all_reduce(total)
        return total.tolist()

    def _gathered(self, position: Position) -> list[Position]:
        if self._n_ranks == 1:
            return [position]
        gathered: list[Any] = [None] * self._n_ranks
        dist.all_gather_object(gathered, position)
        return gathered
