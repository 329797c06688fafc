"""How well `tagstream plan` predicts what `tagstream label` then takes.

    python tests/benchmarks/plan.py [--images 4000] [--runs 1] [--out tests/benchmarks/results/plan-cpu.md]

Three corpora: JPEGs in tars, some of which are many times larger than others; a folder of JPEGs; and photographs of 12
megapixels, a tenth as many, which are decoded in the tasks that read them. Each round plans with a seed of its own,
then labels the whole corpus; both are the command in a process of its own. Wall time, images and bytes are set against
what came out.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
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
_N_PHOTOGRAPHS = 8


@dataclass(frozen=True, slots=True)
class Corpus:
    """A source, and what is asked of the job that labels it."""

    name: str
    folder: Path
    sample: int
    config: str
    """The job's settings as TOML."""


@dataclass(frozen=True, slots=True)
class Round:
    """A prediction and what came."""

    corpus: str
    seed: int
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
    folder.mkdir()
    numbers = count()
    for shard, size in enumerate(_sizes(rng, n_images, n_shards)):
        images = (_jpeg(rng, scenes[shard % 2][number % _N_SCENES]) for number in range(size))
        _write_tar(folder / f"{shard:05d}.tar", images, numbers)


def make_folder(folder: Path, n_images: int) -> None:
    """A folder of images."""
    rng = np.random.default_rng(1)
    scenes = [_scene(rng, (400, 300)) for _ in range(_N_SCENES)]
    folder.mkdir()
    for number in range(n_images):
        (folder / f"{number:07d}.jpg").write_bytes(_jpeg(rng, scenes[number % _N_SCENES]))


def make_photographs(folder: Path, n_images: int, n_shards: int) -> None:
    """Shards of photographs, of which some repeat with other bytes at the end."""
    rng = np.random.default_rng(2)
    photographs = [_jpeg(rng, _scene(rng, (4000, 3000))) for _ in range(_N_PHOTOGRAPHS)]
    folder.mkdir()
    numbers = count()
    for shard, size in enumerate(_sizes(rng, n_images, n_shards)):
        images = (photographs[number % _N_PHOTOGRAPHS] + b"%d-%d" % (shard, number) for number in range(size))
        _write_tar(folder / f"{shard:05d}.tar", images, numbers)


def _sizes(rng: np.random.Generator, n_images: int, n_shards: int) -> list[int]:
    weights = rng.lognormal(0, 0.7, n_shards)
    sizes: list[int] = np.maximum(1, np.round(n_images * weights / weights.sum())).astype(int).tolist()
    return sizes


def _write_tar(path: Path, images: Iterable[bytes], numbers: Iterator[int]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, data in zip(numbers, images, strict=False):
            info = tarfile.TarInfo(f"{number:07d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


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


def make(folder: Path, name: str, options: argparse.Namespace) -> Corpus:
    """One of the corpora, below a folder."""
    source = folder / f"source-{name}"
    if name == "tars":
        make_corpus(source, options.images, options.shards)
    elif name == "folder":
        make_folder(source, options.images)
    else:
        make_photographs(source, options.images // 10, options.shards)
        return Corpus(name, source, options.sample // 5, 'decode_in = "read"\nbatch_size = 4\n')
    return Corpus(name, source, options.sample, "")


def measure(corpus: Corpus, folder: Path, seed: int) -> Round:
    """Plans, then labels everything."""
    plan_file, store_folder = folder / f"{corpus.name}-{seed}.json", folder / f"{corpus.name}-{seed}"
    config = folder / f"{corpus.name}.toml"
    config.write_text(corpus.config)
    # A small source is labelled in the job's own process, where there is nothing to choose.
    asked = [str(corpus.folder), "--config", str(config), "--address", "local"]
    printed = run("plan", *asked, "--sample", str(corpus.sample), "--seed", str(seed), "--format", "json")
    plan_file.write_text(printed)
    load = os.getloadavg()[0]
    run("label", *asked, "--store", str(store_folder), "--plan", str(plan_file))
    store = Store(str(store_folder))
    (name,) = store.run_names()
    (job,) = store.run(name).read_jobs()
    files = [*store.run(name).list_images().values(), *store.run(name).list_labels().values()]
    n_bytes, loads = sum(file["size"] for file in files), (load, os.getloadavg()[0])
    return Round(corpus.name, seed, Forecast.read(str(plan_file)), job, n_bytes, loads)


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.stderr)
    return finished.stdout


def report(rounds: list[Round], options: argparse.Namespace) -> str:
    """The result as Markdown."""
    rows = []
    for one in rounds:
        made, job, found = one.forecast, one.job, one.forecast.n_images
        rows.append(
            [
                one.corpus,
                one.seed,
                job.workers["decode_in"],
                f"{made.seconds.value:.1f} ({made.seconds.low:.1f} to {made.seconds.high:.1f})",
                f"{job.seconds:.1f}",
                f"**{one.ratio:.2f}**",
                f"{made.start_up_s:.1f} / {job.seconds - job.labelling_s:.1f}",
                f"{made.images_per_s.value:.0f} / {job.images_per_s:.0f}",
                f"{found.value:,.0f} ({found.low:,.0f} to {found.high:,.0f}) / {job.n_images:,}",
                f"{made.output_bytes.value / 1e6:.2f} / {one.output_bytes / 1e6:.2f}",
                made.bottleneck,
                f"{one.loads[0]:.1f} / {one.loads[1]:.1f}",
            ]
        )
    header = [
        "corpus",
        "seed",
        "decode_in",
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

`tars`: {options.images:,} JPEGs of 320 x 240 and 512 x 384 in {options.shards} tars of very different size; `folder`: \
as many of 400 x 300, a file each; `photographs`: {options.images // 10:,} of 4000 x 3000 in {options.shards} tars. \
Samples of {options.sample:,} images, of photographs {options.sample // 5:,}.

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
    parser.add_argument("--runs", type=int, default=1, help="rounds of each corpus")
    parser.add_argument("--corpora", nargs="+", default=["tars", "folder", "photographs"])
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for corpus in (make(folder, name, options) for name in options.corpora):
            for seed in range(options.runs):
                rounds.append(measure(corpus, folder, seed))
                text = report(rounds, options)
                if options.out:
                    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
