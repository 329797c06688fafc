"""How much of the recognizer's speed is left in `tagstream label`, and what the pipeline sustains without one.

    python tests/benchmarks/pipeline.py [--images 4096] [--out tests/benchmarks/results/pipeline-cpu.md]

Three measurements in one run, over the same JPEGs in WebDataset shards: the bare recognizer on decoded batches (before
and after, since machines drift), the whole job with that recognizer, and the whole job with recognizers that cost
nothing.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from PIL import Image
from record import environment
from transformers import CLIPVisionConfig, LlamaConfig

from model import ImagePreprocessor, Label, Recognizer
from model.ranking import RankedLabels
from pipeline.actor.decoding import DecodedImage
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.cluster.environment import LOCAL_RAY
from pipeline.cluster.nodes import local_node
from pipeline.cluster.pool import plan_pool
from pipeline.cluster.ray_session import start_ray, stop_ray
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.recognizers.random_recognizer import random_recognizer
from tests.fixtures.recognizers.ranked import ranked

GOAL = 0.95
TOP_K = 10
_DISTINCT_IMAGES = 256
_SHARD_IMAGES = 512


class FreeRecognizer:
    """Gives every image the same label at once."""

    preprocessor = ImagePreprocessor(image_size=224)
    why_copied = None

    def prepare(self, crops: list[np.ndarray]) -> int:
        return len(crops)

    def sample(self, n_images: int, *arguments: Any, **options: Any) -> int:
        return n_images

    def rank_batch(self, n_images: int, ranking: str) -> RankedLabels:
        return ranked([[Label("thing", 0.5, (5, 6), (0.5, 1.0), True)]] * n_images)


class DecodingLabeler(Labeler):
    """Reads, decodes and commits, but recognizes nothing."""

    @staticmethod
    def load_recognizer(config: LabelerConfig) -> Any:
        return FreeRecognizer()


class ReadingLabeler(DecodingLabeler):
    """Reads and commits only."""

    def _decode(self, data: bytes | None) -> DecodedImage:
        return DecodedImage((np.zeros((1, 1, 3), np.uint8),), 1, 1, "")


@dataclass(frozen=True, slots=True)
class JobRate:
    """A job's speed: in steady state, and as a user sees it on the clock."""

    steady_images_per_s: float
    images_per_s: float
    seconds_by_stage: dict[str, float]


def make_shards(folder: Path, n_images: int) -> None:
    """Shards of 512 px JPEGs of about 50 KB; a few hundred distinct images repeat under keys of their own."""
    rng = np.random.default_rng(0)
    jpegs = [_jpeg(rng) for _ in range(min(_DISTINCT_IMAGES, n_images))]
    folder.mkdir()
    for first in range(0, n_images, _SHARD_IMAGES):
        with tarfile.open(folder / f"{first // _SHARD_IMAGES:05d}.tar", "w") as archive:
            for number in range(first, min(first + _SHARD_IMAGES, n_images)):
                data = jpegs[number % len(jpegs)]
                info = tarfile.TarInfo(f"{number:07d}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def _jpeg(rng: np.random.Generator) -> bytes:
    layers = [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for size in (6, 40, 256)]
    images = [np.asarray(layer.resize((512, 384), Image.Resampling.BICUBIC), np.float32) for layer in layers]
    mixed = images[0] * 0.65 + images[1] * 0.2 + images[2] * 0.15
    buffer = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def make_model(folder: Path, small: bool) -> None:
    """A recognizer whose speed on two cores is of the order of a large one's on a GPU beside its decoding."""
    width, n_layers, size = (64, 2, 56) if small else (256, 6, 224)
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        image_size=size,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=2048,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
    )
    random_recognizer(vision=vision, text=text, end_share=0.6).save_pretrained(folder)


def bare_rate(model: Path, shards: Path, n_images: int, batch_size: int) -> float:
    """Images/s of the recognizer alone, on batches that are decoded already."""
    recognizer = Recognizer.from_pretrained(model)
    with tarfile.open(sorted(shards.iterdir())[0]) as archive:
        members = [archive.extractfile(member) for member in archive.getmembers()[:batch_size]]
        crops = [recognizer.preprocessor.view(member.read()) for member in members if member is not None]
    recognizer.label_pixels(recognizer.prepare(crops), TOP_K)
    n_batches = max(3, n_images // batch_size)
    started = time.perf_counter()
    for _ in range(n_batches):
        recognizer.label_pixels(recognizer.prepare(crops), TOP_K)
    return n_batches * len(crops) / (time.perf_counter() - started)


def decode_rate(shards: Path, n_images: int) -> float:
    """Images/s that one core decodes and crops."""
    preprocessor = ImagePreprocessor(image_size=224)
    with tarfile.open(sorted(shards.iterdir())[0]) as archive:
        members = [archive.extractfile(member) for member in archive.getmembers()[:n_images]]
        images = [member.read() for member in members if member is not None]
    started = time.perf_counter()
    for data in images:
        preprocessor.view(data)
    return len(images) / (time.perf_counter() - started)


def job_rate(shards: Path, store: Path, model: Path, batch_size: int, labeler_class: type[Labeler]) -> JobRate:
    """Runs a whole labelling job."""
    settings = LabelSettings(top_k=TOP_K, batch_size=batch_size)
    request = LabelRequest(
        source=str(shards),
        store=str(store),
        model=str(model),
        settings=settings,
        labeler_class=labeler_class,
        address=LOCAL_RAY,
    )
    job = LabelJob(request)
    with _sampled(job) as samples:
        record = job.run().record
    return JobRate(_steady_slope(samples, record.n_images), record.images_per_s, record.seconds_by_stage)


@contextmanager
def _sampled(job: LabelJob) -> Iterator[list[tuple[float, int]]]:
    """(seconds, images) of a running job, ten times a second."""
    samples: list[tuple[float, int]] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            samples.append((time.perf_counter(), job.progress.n_images))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def _steady_slope(samples: list[tuple[float, int]], n_images: int) -> float:
    """Images/s between a fifth and nine tenths of the way."""
    middle = [(at, n) for at, n in samples if 0.2 * n_images <= n <= 0.9 * n_images]
    if len(middle) < 2:
        return float("nan")
    (started, first), (ended, last) = middle[0], middle[-1]
    return (last - first) / (ended - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--small", action="store_true", help="a tiny model, to see that the benchmark runs")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    pool = plan_pool([local_node()], LabelSettings())
    torch.set_num_threads(pool.n_threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards, model = folder / "shards", folder / "model"
        make_shards(shards, options.images)
        make_model(model, options.small)
        n_bare = max(4 * pool.batch_size, options.images // 8)
        bare = [bare_rate(model, shards, n_bare, pool.batch_size)]
        per_core = decode_rate(shards, min(256, options.images))
        start_ray(None, verbose=False)
        jobs = {
            kind.__name__: job_rate(shards, folder / kind.__name__, model, pool.batch_size, kind)
            for kind in (Labeler, DecodingLabeler, ReadingLabeler)
        }
        stop_ray()
        bare.append(bare_rate(model, shards, n_bare, pool.batch_size))
        mean_bytes = sum(path.stat().st_size for path in shards.iterdir()) / options.images
    text = report(options.images, mean_bytes, statistics.mean(bare), per_core, pool.n_threads, jobs)
    print(text)
    if options.out:
        options.out.write_text(text)


def report(
    n_images: int, mean_bytes: float, bare: float, per_core: float, n_cores: int, jobs: dict[str, JobRate]
) -> str:
    """The result as Markdown."""
    whole = jobs["Labeler"]
    ratio = whole.steady_images_per_s / bare
    # Where the recognizer runs on the cores that decode, each image costs both.
    limit = 1 / (1 + bare / (per_core * n_cores)) if not torch.cuda.is_available() else 1.0
    rows = "\n".join(
        f"| {name} | {rate.steady_images_per_s:,.0f} | {rate.images_per_s:,.0f} | "
        + " | ".join(f"{rate.seconds_by_stage[stage]:.1f}" for stage in ("read", "decode", "infer", "write"))
        + " |"
        for name, rate in (
            ("whole job", whole),
            ("no recognizer", jobs["DecodingLabeler"]),
            ("no recognizer, no decoding", jobs["ReadingLabeler"]),
        )
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    verdict = "reached" if ratio >= GOAL else f"missed by {GOAL - ratio:.2f}"
    return f"""# Pipeline: `tagstream label` against the bare recognizer

{n_images:,} JPEGs of {mean_bytes / 1024:.0f} KB (512 x 384) in shards of {_SHARD_IMAGES}, top-k {TOP_K}.

{environment(device, f"python {' '.join(sys.argv)}")}

- bare recognizer on decoded batches: {bare:,.1f} images/s (mean of before and after)
- decoding and cropping: {per_core:,.0f} images/s on one core
- whole job in steady state: {whole.steady_images_per_s:,.1f} images/s, **{ratio:.2f}** of the bare recognizer;
  goal {GOAL}: {verdict}
- limit: {limit:.2f}, since here the recognizer shares {n_cores} cores with the decoding

| job | images/s, steady | images/s, first to last result | read s | decode s | infer s | write s |
|---|---|---|---|---|---|---|
{rows}

Seconds are busy seconds of all workers; decoding overlaps with labelling.
"""


if __name__ == "__main__":
    main()
