"""A training job: what it starts from, the workers that Ray Train hosts, the finished folder."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from model.folder import DEMO_MODEL
from model.training.from_scratch import new_recognizer, train_tokenizer
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.cluster.nodes import available_nodes
from pipeline.cluster.pool import PoolPlan, plan_pool
from pipeline.cluster.ray_session import joined_ray
from pipeline.errors import StoreError, TagstreamError
from pipeline.machine import installed_versions
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.image_folder import count_buckets, deal, folder_shard
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from pipeline.storage.files import full_url, open_filesystem, storage_errors
from pipeline.storage.model_cache import fetch_model, fetch_recognizer, pin_model
from pipeline.training.checkpoints import Checkpoints, TrainingState, upload_folder
from pipeline.training.examples import TeacherPlan, read_in_order, target_labels
from pipeline.training.finish import write_finished_folder
from pipeline.training.hosting import fit
from pipeline.training.progress import TrainProgress
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import TrainPlan

_INITIAL = "initial"
# The vocabulary of a model from scratch is learned from the labels of this many images.
_VOCABULARY_IMAGES = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRequest:
    """One invocation of `tagstream train`."""

    source: str
    out: str
    settings: TrainSettings = field(default_factory=TrainSettings)
    init: str | None = None
    """A model to start from; None starts with a new one of the sizes in the settings."""
    val: str | None = None
    teacher: str | None = None
    """A model whose confident labels stand in place of the source's own."""
    min_score: float = 0.5
    n_workers: int = 0
    """How many workers of Ray train; 0 trains in this process."""
    resume: bool = False
    address: str | None = None
    verbose: bool = False
    command: str = ""
    labeler_class: type[Labeler] = Labeler

    def described(self) -> dict[str, Any]:
        """All that decides the result, as plain values."""
        sources = {"source": self.source, "init": self.init, "teacher": self.teacher}
        placed = {name: value and _absolute(value) for name, value in sources.items()}
        return {**placed, "min_score": self.min_score, **self.settings.described()}


class TrainJob:
    """Trains a recognizer and leaves its folder, its metrics and its card in `out`."""

    def __init__(self, request: TrainRequest) -> None:
        self.request = request
        self.progress = TrainProgress(n_steps=request.settings.steps)
        self.checkpoints = Checkpoints(request.out)
        self._models: dict[str, str] = {}
        """What the models that the request names are pinned to."""

    def run(self) -> TrainingState:
        """Does the job. Raises TagstreamError where it cannot be done, KeyboardInterrupt where it was stopped; the last
        whole checkpoint stays, and `resume` goes on from there.
        """
        request, progress = self.request, self.progress
        progress.begin("listing the source")
        self._check_out()
        self._models = {model: pin_model(model).name for model in (request.init, request.teacher) if model}
        shards = source_shards(request.source)
        val_shards = source_shards(request.val) if request.val else []
        progress.begin("starting Ray")
        with joined_ray(request.address, request.verbose):
            self._train(shards, val_shards)
        progress.begin("writing the model")
        return self._finish()

    def _train(self, shards: list[Shard], val_shards: list[Shard]) -> None:
        request, progress = self.request, self.progress
        pool = plan_pool(available_nodes(request.address), LabelSettings())
        progress.begin("preparing the model")
        plan = TrainPlan(
            out=as_url(request.out),
            start_model=self._start_model(shards),
            shards=shards,
            val_shards=val_shards,
            settings=request.settings,
            asked=request.described(),
            device=pool.device,
            n_threads=pool.n_threads if not request.n_workers else max(1, pool.n_threads // request.n_workers),
            teacher=self._teacher_plan(pool),
            labeler_class=request.labeler_class,
        )
        progress.begin("loading the model")
        fit(plan, request.n_workers, pool, progress)

    def _check_out(self) -> None:
        """A run goes on only where asked to, and only with the settings it began with."""
        request = self.request
        steps = self.checkpoints.steps()
        if not request.resume:
            if steps:
                raise StoreError(
                    f"{request.out} holds a training run (step {steps[-1]:,}); "
                    "go on with --resume, or name another --out"
                )
            return
        if not steps:
            return
        stored, wanted = self.checkpoints.read_state(steps[-1]).settings, request.described()
        differing = [
            f"{name} {stored.get(name)} -> {wanted.get(name)}"
            for name in sorted({*stored, *wanted})
            if json.dumps(stored.get(name)) != json.dumps(wanted.get(name))
        ]
        if differing:
            raise StoreError(
                f"the run in {request.out} began with other settings ({'; '.join(differing)}); resume with those"
            )

    def _start_model(self, shards: list[Shard]) -> str:
        """The model that training starts from: a given one, or a new one that is kept in `out`."""
        if self.request.init:
            model = self._models[self.request.init]
            fetch_recognizer(model)
            return model
        filesystem, path = open_filesystem(self.request.out)
        target = f"{path.rstrip('/')}/{_INITIAL}"
        with storage_errors(f"write the first model to {self.request.out}"):
            # One that a job of other settings left, before its first checkpoint, is not taken over.
            if not self.request.resume or not filesystem.exists(f"{target}/config.json"):
                with tempfile.TemporaryDirectory() as folder:
                    self._new_model(shards, Path(folder))
                    filesystem.makedirs(target, exist_ok=True)
                    upload_folder(filesystem, Path(folder), target, last="config.json")
        return full_url(filesystem, target)

    def _new_model(self, shards: list[Shard], folder: Path) -> None:
        transformers_logging.disable_progress_bar()
        settings = self.request.settings
        samples = islice(read_in_order(shards), _VOCABULARY_IMAGES)
        labels = [label for sample in samples for label in target_labels(sample.truth, sample.caption, settings)]
        if not labels:
            raise TagstreamError(
                f"no labels to learn a vocabulary from in the first {_VOCABULARY_IMAGES:,} images of "
                f"{self.request.source}; give a model to start from with --init"
            )
        sizes = asdict(settings.model)
        tokenizer = train_tokenizer(labels, sizes.pop("vocab_size"))
        new_recognizer(tokenizer=tokenizer, seed=settings.seed, **sizes).save_pretrained(folder)

    def _teacher_plan(self, pool: PoolPlan) -> TeacherPlan | None:
        request = self.request
        if request.teacher is None:
            return None
        model = self._models[request.teacher]
        fetch_model(model)
        config = LabelerConfig.of(
            model, LabelSettings(), dtype=pool.dtype, device=pool.device, n_threads=pool.n_threads
        )
        return TeacherPlan(config, pool, request.min_score)

    def _finish(self) -> TrainingState:
        """Writes the finished folder from the best checkpoint; without evaluations from the last."""
        whole = self.checkpoints.steps()
        last = self.checkpoints.read_state(whole[-1])
        step = last.best_step if last.best_step in whole else last.step
        write_finished_folder(self.request.out, self.checkpoints, last, step, self._facts())
        return last

    def _facts(self) -> dict[str, Any]:
        """What the card tells of the job."""
        request = self.request
        facts = {
            "name": Path(request.out.rstrip("/")).resolve().name,
            "command": request.command or "(called from Python)",
            "data": request.source,
            "validation": request.val,
            "started from": request.init,
            "teacher": request.teacher and f"{request.teacher}, labels of score {request.min_score} or more",
            "workers": request.n_workers or "in one process",
            "versions": ", ".join(f"{name} {version}" for name, version in installed_versions().items()),
            "commit": source_commit(),
            "date": datetime.now(UTC).date().isoformat(),
        }
        return {name: value for name, value in facts.items() if value is not None}


def source_shards(source: str) -> list[Shard]:
    """All shards of a source, in the forms that labelling takes."""
    found = find_source(source)
    buckets = deal(found.images, count_buckets(len(found.images))) if found.images else {}
    return found.shards or [folder_shard(found.root, name, files) for name, files in buckets.items()]


def _absolute(place: str) -> str:
    """The name of a source or a model, with an absolute path where it is a folder on this machine."""
    return str(Path(place).resolve()) if place != DEMO_MODEL and "://" not in place and Path(place).is_dir() else place


def source_commit() -> str | None:
    """The commit of the code that runs, where it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def as_url(out: str) -> str:
    """`out` for processes with another working directory."""
    filesystem, path = open_filesystem(out)
    return full_url(filesystem, path)
