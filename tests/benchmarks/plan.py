"""How well `tagstream plan` predicts what `tagstream label` then takes.

    python tests/benchmarks/plan.py [--images 4000] [--runs 3] [--out tests/benchmarks/results/plan-cpu.md]

A corpus of JPEGs in tars, some many times larger than others. Each round plans with a seed of its own, then labels the
whole corpus; both are the command in a process of its own. Wall time, images and bytes are set against what came out.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image
from record import ROOT, environment, markdown_table

from pipeline.forecast.forecast import Forecast
from pipeline.store.store import Store
from schemas import JobRecord

GOAL = 0.25
_N_SCENES = 64


@dataclass(frozen=True, slots=True)
class Round:
    """A prediction and what came."""

    forecast: Forecast
    job: JobRecord
    output_bytes: int
    loads: tuple[float, float]
    """The machine's load, a minute's mean, after the plan and after the job."""

    @property
    def ratio(self) -> float:
        return self.forecast.seconds.value / self.job.seconds


def make_corpus(folder: Path, n_images: int, n_shards: int) -> None:
    """Shards of very different size; half of them hold larger images than the others. No two images are alike."""
    rng = np.random.default_rng(0)
    scenes = [[_scene(rng, size) for _ in range(_N_SCENES)] for size in ((320, 240), (512, 384))]
    weights = rng.lognormal(0, 0.7, n_shards)
    folder.mkdir()
    number = 0
    for shard, size in enumerate(np.maximum(1, np.round(n_images * weights / weights.sum())).astype(int)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for _ in range(size):
                data = _jpeg(rng, scenes[shard % 2][number % _N_SCENES])
                info = tarfile.TarInfo(f"{number:07d}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
                number += 1


def _scene(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    layers = [Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)) for cells in (6, 40, 200)]
    images = [np.asarray(layer.resize(size, Image.Resampling.BICUBIC), np.float32) for layer in layers]
    mixed = images[0] * 0.65 + images[1] * 0.2 + images[2] * 0.15
    return mixed.clip(0, 255).astype(np.uint8)


def _jpeg(rng: np.random.Generator, scene: np.ndarray) -> bytes:
    """The scene, moved on around its edges."""
    buffer = io.BytesIO()
    shift = tuple(rng.integers(0, scene.shape[:2]))
    Image.fromarray(np.roll(scene, shift, axis=(0, 1))).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def measure(source: Path, folder: Path, sample: int, seed: int) -> Round:
    """Plans, then labels everything."""
    plan_file, store_folder = folder / f"plan-{seed}.json", folder / f"store-{seed}"
    printed = run("plan", str(source), "--sample", str(sample), "--seed", str(seed), "--format", "json")
    plan_file.write_text(printed)
    load = os.getloadavg()[0]
    run("label", str(source), "--store", str(store_folder), "--plan", str(plan_file))
    store = Store(str(store_folder))
    (name,) = store.run_names()
    (job,) = store.run(name).read_jobs()
    files = [*store.run(name).list_images().values(), *store.run(name).list_labels().values()]
    return Round(Forecast.read(str(plan_file)), job, sum(file["size"] for file in files), (load, os.getloadavg()[0]))


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.stderr)
    return finished.stdout


def report(rounds: list[Round], options: argparse.Namespace, n_bytes: int) -> str:
    """The result as Markdown."""
    rows = []
    for number, one in enumerate(rounds):
        made, job, count = one.forecast, one.job, one.forecast.n_images
        rows.append(
            [
                number,
                f"{made.seconds.value:.1f} ({made.seconds.low:.1f} to {made.seconds.high:.1f})",
                f"{job.seconds:.1f}",
                f"**{one.ratio:.2f}**",
                f"{made.start_up_s:.1f} / {job.seconds - job.labelling_s:.1f}",
                f"{made.images_per_s.value:.0f} / {job.images_per_s:.0f}",
                f"{count.value:,.0f} ({count.low:,.0f} to {count.high:,.0f}) / {job.n_images:,}",
                f"{made.output_bytes.value / 1e6:.2f} / {one.output_bytes / 1e6:.2f}",
                made.bottleneck,
                f"{one.loads[0]:.1f} / {one.loads[1]:.1f}",
            ]
        )
    header = [
        "seed",
        "predicted s",
        "real s",
        "ratio",
        "start s",
        "images/s",
        "images",
        "store MB",
        "bottleneck",
        "load",
    ]
    n_good = sum(abs(one.ratio - 1) <= GOAL for one in rounds)
    n_inside = sum(one.forecast.seconds.low <= one.job.seconds <= one.forecast.seconds.high for one in rounds)
    return f"""# `tagstream plan` against what the job took

{options.images:,} JPEGs in {options.shards} tars of very different size, {n_bytes / 1e6:,.0f} MB; samples of \
{options.sample:,} images.

{environment(rounds[0].job.workers["device"], f"python {' '.join(sys.argv)}")}

{markdown_table(header, rows)}

Wall time within {GOAL:.0%} of what was predicted: {n_good} of {len(rounds)} times; within its interval: \
{n_inside} of {len(rounds)}. Pairs are predicted / real; `load` is the machine's, after the plan / after the job: \
what else runs on it meanwhile is in no prediction.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--sample", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = folder / "source"
        make_corpus(source, options.images, options.shards)
        n_bytes = sum(path.stat().st_size for path in source.iterdir())
        rounds = []
        for seed in range(options.runs):
            rounds.append(measure(source, folder, options.sample, seed))
            text = report(rounds, options, n_bytes)
            if options.out:
                options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
