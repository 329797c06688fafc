"""What coarser numbers do to the labels of a trained model: the demo model on the scenes that come with the command."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from model import Recognizer
from model.images.image_input import read_images
from model.ranking import Label
from model.sampling import SampledBatch
from tests.benchmarks.acceleration import timing
from tests.benchmarks.acceleration.timing import Way
from tests.benchmarks.acceleration.ways import Maker

SHARDS = Path(__file__).resolve().parents[3] / "jobs" / "demo" / "shards"
TOP_K, KEPT_AT = 20, (1, 5, 10)
# Nothing is compiled or recorded: that changes the order of sums at most.
NUMBERS: dict[str, Callable[[Maker], Way]] = {
    "bfloat16": Maker.product,
    "bfloat16, rebuilt": lambda maker: maker.fast(fused=True),
    "float8 decoder": lambda maker: maker.fast(fused=True, float8_decoder=True),
    "float8 decoder and encoder": lambda maker: maker.fast(fused=True, float8_decoder=True, float8_encoder=True),
}
Labels = Sequence[Sequence[Label]]


def demo_label_rows(device: str, n_images: int | None) -> Iterator[tuple[str, ...]]:
    """Of each kind of numbers: how many of float32's first labels it has, and its recall@10.

    Args:
        n_images: of the scenes; default all.
    """
    images, truths = read_scenes(n_images)
    exact = labels_of(device, "float32", Maker.product, images)
    yield ("float32", *("100.0%" for _ in KEPT_AT), f"{recall(exact, truths, 10):.3f}")
    for name, make in NUMBERS.items():
        found = labels_of(device, "bfloat16", make, images)
        kept = (f"{kept_labels(exact, found, n):.1%}" for n in KEPT_AT)
        yield (name, *kept, f"{recall(found, truths, 10):.3f}")


@torch.inference_mode()
def labels_of(device: str, dtype: str, make: Callable[[Maker], Way], images: Sequence[bytes]) -> Labels:
    """Labels of all images, in batches of the size a job takes."""
    recognizer = Recognizer.from_pretrained("demo", device, dtype)
    way = make(Maker(recognizer.module))
    labels: list[Sequence[Label]] = []
    for start in range(0, len(images), 64):
        views = [recognizer.preprocessor.view(image) for image in read_images(images[start : start + 64])]
        pixels = recognizer.prepare(views).to(recognizer.device, recognizer.dtype)
        branches, _ = timing.label(way, pixels, TOP_K, recognizer.config.max_label_tokens)
        labels += recognizer.rank(SampledBatch(branches, pixels))
    return labels


def read_scenes(limit: int | None = None) -> tuple[list[bytes], list[set[str]]]:
    """The scenes' JPEGs and the names of what is on them."""
    images, truths = [], []
    for path in sorted(SHARDS.glob("*.tar")):
        with tarfile.open(path) as shard:
            files = {member.name: shard.extractfile(member).read() for member in shard if member.isfile()}
        for name in sorted(files):
            if name.endswith(".jpg"):
                images.append(files[name])
                truths.append(set(json.loads(files[name.replace(".jpg", ".json")])["labels"]))
    return images[:limit], truths[:limit]


def kept_labels(reference: Labels, other: Labels, n: int) -> float:
    """The share of the reference's first n labels that are among the other's first n."""
    expected = [{label.text for label in labels[:n]} for labels in reference]
    found = [{label.text for label in labels[:n]} for labels in other]
    return sum(len(a & b) for a, b in zip(expected, found, strict=True)) / sum(map(len, expected))


def recall(found: Labels, truths: Sequence[set[str]], n: int) -> float:
    """The share of an image's names among its first n labels, mean over images."""
    shares = [
        len(truth & {label.text for label in labels[:n]}) / len(truth)
        for labels, truth in zip(found, truths, strict=True)
        if truth
    ]
    return sum(shares) / len(shares)
