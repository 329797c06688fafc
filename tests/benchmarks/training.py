"""How much of a bare training step's speed is left in `tagstream train`.

    python tests/benchmarks/training.py [--steps 60] [--out tests/benchmarks/results/training-cpu.md]

The bare step repeats batches that lie ready in memory, before and after the job (machines drift). The job reads,
decodes and packs the scenes that ship with the project. Both train the demo preset's model.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import statistics
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from demo_preset import demo_settings
from record import environment

from pipeline.cluster.ray_session import start_ray, stop_ray
from pipeline.training.batches import BatchMaker
from pipeline.training.examples import ExampleStream, Position
from pipeline.training.job import TrainJob, TrainRequest, source_shards
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import Trainer, TrainPlan

SOURCE = str(files("jobs.demo") / "shards")
GOAL = 0.95
_LOG_EVERY = 5
# The first rows hold the start of reading and of the threads.
_ROWS_LEFT_OUT = 2
_READY_BATCHES = 4


def train(out: Path, settings: TrainSettings) -> TrainJob:
    """The whole job, in this process."""
    job = TrainJob(TrainRequest(source=SOURCE, out=str(out), settings=settings))
    job.run()
    return job


class BareStep:
    """A training step over batches that lie ready in memory.

    They are read once, and long before Ray is stopped: its threads that read ahead take a while to notice that nobody
    wants more, and end the process without a word where Ray is gone by then.
    """

    def __init__(self, scratch: Path, model: str, settings: TrainSettings) -> None:
        shards = source_shards(SOURCE)
        plan = TrainPlan(
            out=str(scratch),
            start_model=model,
            shards=shards,
            val_shards=[],
            settings=settings,
            asked=settings.described(),
            device="cuda" if torch.cuda.is_available() else "cpu",
            n_threads=torch.get_num_threads(),
        )
        self._trainer, self._batch_size = Trainer(plan, 0, 1, lambda report: None), settings.batch_size
        maker = BatchMaker(self._trainer.labeler, settings, 0, 1)
        examples = ExampleStream(shards, settings, 0, 1, None).batches(settings.batch_size, Position())
        first = itertools.islice(examples, _READY_BATCHES)
        self._ready = [maker.make(step, *batch) for step, batch in enumerate(first)]

    def rate(self, n_steps: int) -> float:
        """Images a second."""
        for batch in self._ready[:2]:
            self._trainer.step(0, batch)
        started = time.perf_counter()
        for step in range(n_steps):
            self._trainer.step(step, self._ready[step % len(self._ready)])
        return n_steps * self._batch_size / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--small", action="store_true", help="a tiny model, to see that the benchmark runs")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    settings = demo_settings(options.steps, options.small, log_every=_LOG_EVERY)
    n_bare = max(4, options.steps // 3)
    start_ray(None, verbose=False)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train(folder / "first", dataclasses.replace(settings, steps=_LOG_EVERY))
        model = str(folder / "first")
        step = BareStep(folder / "bare", model, settings)
        bare = [step.rate(n_bare)]
        job = train(folder / "job", settings)
        bare.append(step.rate(n_bare))
        rows = job.checkpoints.read_state(options.steps).metrics[_ROWS_LEFT_OUT:]
    stop_ray()
    text = report(settings, bare, rows)
    print(text)
    if options.out:
        options.out.write_text(text)


def report(settings: TrainSettings, bare: list[float], rows: list[dict[str, float]]) -> str:
    """The result as Markdown."""
    bare_images_per_s = statistics.mean(bare)
    seconds = sum(1 / row["images_per_s"] for row in rows) / len(rows)
    images_per_s, waited = 1 / seconds, statistics.mean(row["wait_share"] for row in rows)
    ratio = images_per_s / bare_images_per_s
    verdict = "reached" if ratio >= GOAL else f"missed by {GOAL - ratio:.2f}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return f"""# Training: `tagstream train` against the bare step

{environment(device, f"python {' '.join(sys.argv)}")}
- model: the demo preset's; {settings.batch_size} images a step, {settings.precision}

| what | images/s |
|---|---|
| bare step on batches in memory, before the job | {bare[0]:,.1f} |
| the same, after the job | {bare[1]:,.1f} |
| the job, reading and decoding: {len(rows) * settings.log_every} steps | {images_per_s:,.1f} |

The job trains at **{ratio:.2f}** of the bare step; goal {GOAL}: {verdict}. It waited for data during {waited:.1%} of
its time; the rest of the difference is what reading and decoding take from the same cores.
"""


if __name__ == "__main__":
    main()
