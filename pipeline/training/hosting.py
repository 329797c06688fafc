"""Ray Train hosts the training loop: in this process, or as data-parallel workers that are restarted when they die."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Empty
from typing import Any

import ray
import ray.train
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue

from pipeline.background import in_background
from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.ray_errors import as_sentence
from pipeline.training.progress import TrainProgress
from pipeline.training.trainer import Trainer, TrainPlan

# How often a worker group may die and be started anew from the last whole checkpoint.
_MAX_FAILURES = 3
_POLL_S = 0.5


class _InterruptibleTrainer(TorchTrainer):
    """A trainer that leaves Ctrl-C to whoever calls it, as a KeyboardInterrupt.

    Ray's own handler ends the process with exit code 1 and no word, and stays in the process when training is over.
    """

    def _register_sigint_handler(self, controller: ActorHandle) -> None:
        pass


def fit(plan: TrainPlan, n_workers: int, pool: PoolPlan, progress: TrainProgress) -> None:
    """Trains until the last step is done.

    Args:
        n_workers: 0 trains in this process; with more, each gets a GPU where there are some.

    Raises TagstreamError with one clear sentence for whatever stops the training.
    """
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    if n_workers == 0:
        _fit_here(plan, progress)
        return
    reports = Queue()
    with tempfile.TemporaryDirectory() as storage, _followed(reports, progress):
        trainer = _InterruptibleTrainer(
            _train_worker,
            train_loop_config={"plan": plan, "reports": reports},
            torch_config=TorchConfig(backend="nccl" if plan.device == "cuda" else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=n_workers,
                use_gpu=plan.device == "cuda",
                resources_per_worker=_resources(pool, n_workers),
            ),
            run_config=RunConfig(
                storage_path=storage, failure_config=FailureConfig(max_failures=_MAX_FAILURES), name="training"
            ),
        )
        try:
            trainer.fit()
        except (RayError, ray.train.TrainingFailedError) as error:
            raise as_sentence(error) from error


def _fit_here(plan: TrainPlan, progress: TrainProgress) -> None:
    """Ray Train's local mode: the loop runs in this process, without process group or restarts."""

    def loop() -> None:
        Trainer(plan, rank=0, n_ranks=1, report=progress.update).run()

    TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0)).fit()


def _train_worker(config: dict[str, Any]) -> None:
    """One data-parallel worker's life."""
    if config["plan"].device == "cuda":
        torch.cuda.set_device(ray.train.torch.get_device())
    context = ray.train.get_context()
    rank, reports = context.get_world_rank(), config["reports"]

    def report(row: Mapping[str, Any]) -> None:
        if rank == 0:
            reports.put_nowait(dict(row))

    Trainer(config["plan"], rank, context.get_world_size(), report).run()


def _resources(pool: PoolPlan, n_workers: int) -> dict[str, float]:
    """What a worker reserves: its GPU and the CPUs beside it, or its share of the CPUs; one is left for reading."""
    if pool.device == "cuda":
        return {"CPU": pool.cpus_per_actor, "GPU": 1}
    n_cpus = ray.cluster_resources().get("CPU", 1)
    return {"CPU": max(0.1, (n_cpus - 1) / n_workers)}


@contextmanager
def _followed(reports: Queue, progress: TrainProgress) -> Iterator[None]:
    """Takes the workers' reports over into this process's progress."""

    def follow(is_over: threading.Event) -> None:
        while not is_over.is_set():
            try:
                progress.update(reports.get(timeout=_POLL_S))
            except Empty:
                continue
            except RayError:
                return

    with in_background("training-reports", follow):
        yield
        reports.shutdown()
