"""What denoising brings: the demo's model trained with and without it, on clean and on degraded scenes.

    tagstream demo-corpus --out corpus/train --images 40000 --seed 1
    tagstream demo-corpus --out corpus/val --images 1000 --seed 2
    python tests/benchmarks/denoising.py corpus/train corpus/val [--init MODEL] [--steps 3000] [--seeds 3] [--out FILE]

Both variants start from the same weights and see the same images in the same order; a seed decides both.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from demo_preset import demo_settings
from labelled_scenes import Degrade, Scene, measure_recall, read_scenes
from PIL import Image, ImageFilter
from record import environment

from model import Recognizer
from model.training.denoising import Corruption
from pipeline.cluster.ray_session import start_ray, stop_ray
from pipeline.training.job import TrainJob, TrainRequest

VARIANTS = {
    "plain": Corruption(),
    "denoising": Corruption(mask_share=0.15, noise_share=0.15, noise_std=0.5, label_share=0.1, weight=0.1),
}


def add_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float64) + rng.normal(0, 40, (image.height, image.width, 3))
    return Image.fromarray(np.uint8(pixels.clip(0, 255)))


def blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(2.5))


def occlude(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Eight grey squares, an eighth of the side each: about a ninth of the scene."""
    covered, side = image.copy(), image.width // 8
    for left, top in rng.integers(0, image.width - side, (8, 2)):
        covered.paste((128, 128, 128), (int(left), int(top), int(left) + side, int(top) + side))
    return covered


def darken(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A fifth of the light, with the noise of a small sensor."""
    pixels = np.asarray(image, np.float64) * 0.2 + rng.normal(0, 4, (image.height, image.width, 3))
    return Image.fromarray(np.uint8(pixels.clip(0, 255)))


CONDITIONS: dict[str, Degrade | None] = {
    "clean": None,
    "noise": add_noise,
    "blur": blur,
    "occlusion": occlude,
    "low light": darken,
}


def recalls(model: Path, scenes: list[Scene]) -> dict[str, float]:
    """Recall@10 under each condition."""
    recognizer = Recognizer.from_pretrained(model)
    return {
        condition: measure_recall(recognizer, scenes, degrade).means()["recall_10"] or 0.0
        for condition, degrade in CONDITIONS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("train")
    parser.add_argument("val")
    parser.add_argument("--init", help="a model both start from; default a new one a seed")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--val-images", type=int, default=1000)
    parser.add_argument("--small", action="store_true", help="a tiny model, to see that the benchmark runs")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    start_ray(None, verbose=False)
    scenes = read_scenes(options.val, options.val_images)
    measured: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            init = options.init
            for variant, corruption in VARIANTS.items():
                settings = demo_settings(options.steps, options.small, dtype="float32", seed=seed)
                settings = dataclasses.replace(settings, corruption=corruption)
                out = Path(scratch) / f"{variant}-{seed}"
                TrainJob(TrainRequest(source=options.train, out=str(out), init=init, settings=settings)).run()
                init = init or str(out / "initial")
                measured[variant].append(recalls(out, scenes))
                print(f"seed {seed}, {variant}: {measured[variant][-1]}", file=sys.stderr)
    stop_ray()
    text = report(options, measured)
    print(text)
    if options.out:
        options.out.write_text(text)


def report(options: argparse.Namespace, measured: dict[str, list[dict[str, float]]]) -> str:
    """The result as Markdown."""
    rows = []
    for condition in CONDITIONS:
        cells = [[result[condition] for result in measured[variant]] for variant in VARIANTS]
        differences = [b - a for a, b in zip(*cells, strict=True)]
        rows.append(f"| {condition} | " + " | ".join(spread(values) for values in (*cells, differences)) + " |")
    table = "\n".join(rows)
    return f"""# Denoising: recall@10 with and without it

{environment("cpu", f"python {' '.join(sys.argv)}")}
- model: the demo preset's, {options.steps:,} steps, {options.seeds} seeds, from {options.init or "random weights"}
- denoising: {VARIANTS["denoising"]}
- {options.val_images:,} scenes; mean over the seeds, lowest to highest

| scenes | plain | denoising | difference, seed by seed |
|---|---|---|---|
{table}
"""


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
