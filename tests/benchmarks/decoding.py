"""What decoding costs by size and format, and what the ways to decode less change: grey levels, labels, recall.

    python tests/benchmarks/decoding.py [PHOTOGRAPHS] [--images 20] [--scenes 200] [--out FILE]

PHOTOGRAPHS is a folder of tars; the scenes are those that come along. Both are enlarged to the size in question and get
the grain of a camera, so that there is detail to the last pixel. Seconds are CPU seconds of one thread for a crop of
224 pixels, the ways taken in turn, the best of two. "before" is rule 2 of pixels: all of a JPEG, resized by Pillow.
Labels are the demo model's, whose crop has 96 pixels; "least margins" are pictures of just the size that leaves "fast"
4 pixels a side and "faster" 2 for one of the crop, so that these change most.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from PIL import Image
from record import ROOT, environment, markdown_table

from model import ImagePreprocessor, Recognizer

_SCENES = ROOT / "jobs" / "demo" / "shards"
_BATCH = 16
_TOP_K, _N_LABELS = 20, 10
_TIMED_PX = 224
_GRAIN_LEVELS = 2
_Z = 1.96
_SAVED_AGAIN = "saved again, exact"


@dataclass(frozen=True)
class Kind:
    """How the pictures are stored."""

    name: str
    megapixels: float = 0.0
    short_side: int = 0
    """Pixels, in the place of `megapixels`."""
    image_format: str = "JPEG"
    options: Mapping[str, Any] = field(default_factory=lambda: {"quality": 92})


KINDS = (
    Kind("least margins", short_side=772),
    Kind("0.27 MP", 0.27),
    Kind("2 MP", 2),
    Kind("12 MP", 12),
    Kind("24 MP", 24),
    Kind("12 MP progressive", 12, options={"quality": 92, "progressive": True}),
    Kind("2 MP PNG", 2, image_format="PNG", options={"compress_level": 1}),
    Kind("2 MP WebP", 2, image_format="WEBP", options={"quality": 90}),
)
SMALL = tuple(replace(kind, megapixels=kind.megapixels / 8) for kind in KINDS)


@dataclass(frozen=True)
class Picture:
    image: Image.Image
    objects: frozenset[str]
    """Names of what a scene shows; none of a photograph."""


@dataclass
class Measured:
    """Pictures of one kind, seen in every way."""

    kind: Kind
    pictures: list[Picture] = field(default_factory=list)
    n_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    crops: dict[str, list[np.ndarray]] = field(default_factory=dict)
    labels: dict[str, list[list[str]]] = field(default_factory=dict)
    """Of each way and picture, best first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photographs", type=Path, nargs="?", help="folder of tars")
    parser.add_argument("--images", type=int, default=20, help="photographs, and scenes, of each kind")
    parser.add_argument("--scenes", type=int, default=200, help="of the least margins, by which recall is measured")
    parser.add_argument("--small", action="store_true", help="an eighth of the pixels")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = Recognizer.from_pretrained("demo", device="cpu", dtype="float32")
    ways = ways_to_see(recognizer.preprocessor)
    scenes = list(read_pictures(_SCENES, options.scenes))
    photographs = list(read_pictures(options.photographs, options.images)) if options.photographs else []
    measured = []
    for kind in SMALL if options.small else KINDS:
        n_scenes = options.scenes if kind.short_side else options.images
        measured.append(measure(kind, [*photographs, *scenes[:n_scenes]], ways))
        label_all(measured[-1], recognizer)
    text = report(measured)
    print(text)
    if options.out:
        options.out.write_text(text)


def ways_to_see(preprocessor: ImagePreprocessor) -> dict[str, ImagePreprocessor]:
    ways = {decoding: replace(preprocessor, decoding=decoding) for decoding in ("exact", "fast", "faster")}
    return {"before": replace(preprocessor, pixel_rule=2), **ways}


def read_pictures(folder: Path, n: int) -> Iterator[Picture]:
    """The first pictures of a folder's tars, with the labels of the JSON beside each."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            members = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
            for name in [name for name in members if name.endswith(".jpg")][:n]:
                image, beside = members[name], members.get(name.removesuffix(".jpg") + ".json")
                n -= 1
                is_scene = folder == _SCENES and beside is not None
                objects = frozenset(json.load(beside)["labels"]) if is_scene and beside else frozenset()
                if image is not None:
                    yield Picture(Image.open(io.BytesIO(image.read())).convert("RGB"), objects)


def measure(kind: Kind, pictures: Sequence[Picture], ways: Mapping[str, ImagePreprocessor]) -> Measured:
    measured = Measured(kind, list(pictures), seconds=dict.fromkeys(ways, 0.0), crops={way: [] for way in ways})
    for number, picture in enumerate(pictures):
        data = encode(enlarge(picture.image, kind, number), kind.image_format, **kind.options)
        measured.n_bytes += len(data)
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(2):
            for way, preprocessor in ways.items():
                timed = replace(preprocessor, image_size=_TIMED_PX)
                started = time.thread_time()
                timed.view(data)
                best[way] = min(best[way], time.thread_time() - started)
        for way, preprocessor in ways.items():
            measured.seconds[way] += best[way]
            measured.crops[way].append(preprocessor.view(data))
        if kind.image_format == "JPEG":
            again = encode(Image.open(io.BytesIO(data)), "JPEG", quality=95)
            measured.crops.setdefault(_SAVED_AGAIN, []).append(ways["exact"].view(again))
    return measured


def enlarge(image: Image.Image, kind: Kind, seed: int) -> Image.Image:
    """A picture of so many pixels, with grain."""
    scale = (kind.megapixels * 1e6 / (image.width * image.height)) ** 0.5
    if kind.short_side:
        scale = kind.short_side / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    large = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    grain = np.random.default_rng(seed).standard_normal((*large.shape[:2], 1), dtype=np.float32)
    return Image.fromarray(np.uint8((large + _GRAIN_LEVELS * grain).round().clip(0, 255)))


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def label_all(measured: Measured, recognizer: Recognizer) -> None:
    for way, crops in measured.crops.items():
        found: list[list[str]] = []
        for start in range(0, len(crops), _BATCH):
            pixels = recognizer.prepare(crops[start : start + _BATCH])
            found += [[label.text for label in labels] for labels in recognizer.label_pixels(pixels, _TOP_K)]
        measured.labels[way] = found


def report(measured: Sequence[Measured]) -> str:
    return f"""# Decoding

{environment("cpu", f"python {' '.join(sys.argv)}")}

## Images a second a core, and how many times as many as before

{markdown_table(["pictures", "MB", "before", "exact", "fast", "faster"], [speeds(one) for one in measured])}

## Against before

Grey levels of the crop, of 255; images with another first label, with another set of ten; labels of the ten replaced.
"{_SAVED_AGAIN}" is the same picture, decoded and written once more at quality 95: what such a difference is worth.

{markdown_table(["pictures", "", "n", "mean", "max", "first", "ten", "replaced"], list(changes(measured)))}

## Recall of scenes at the least margins

Of their objects among the first ten labels, with 95 % intervals; the difference is that of the same scene.

{markdown_table(["", "scenes", "recall@10", "against before"], list(recalls(measured)))}
"""


def speeds(one: Measured) -> list[str]:
    n = len(one.pictures)
    before_s = one.seconds["before"]
    rates = [f"{n / s:.1f}" + ("" if s == before_s else f" ({before_s / s:.1f}x)") for s in one.seconds.values()]
    return [one.kind.name, f"{one.n_bytes / n / 1e6:.2f}", *rates]


def changes(measured: Sequence[Measured]) -> Iterator[list[str]]:
    for one in measured:
        before = np.stack(one.crops["before"]).astype(int)
        for way, crops in one.crops.items():
            if way == "before" or (one.kind.image_format != "JPEG" and way != "exact"):
                continue
            levels = np.abs(np.stack(crops) - before)
            pairs = list(zip(one.labels["before"], one.labels[way], strict=True))
            first = np.mean([a[:1] != b[:1] for a, b in pairs])
            tens = [(set(a[:_N_LABELS]), set(b[:_N_LABELS])) for a, b in pairs]
            replaced = np.mean([len(a - b) / max(1, len(a)) for a, b in tens])
            shares = (first, np.mean([a != b for a, b in tens]), replaced)
            yield [
                one.kind.name,
                way,
                str(len(pairs)),
                f"{levels.mean():.3f}",
                str(levels.max()),
                *(f"{share:.1%}" for share in shares),
            ]


def recalls(measured: Sequence[Measured]) -> Iterator[list[str]]:
    (one,) = (one for one in measured if one.kind.short_side)
    of_way = {way: recall_of_scenes(one.pictures, labels) for way, labels in one.labels.items()}
    for way, recall in of_way.items():
        difference = recall - of_way["before"]
        yield [way, str(len(recall)), interval(recall), "" if way == "before" else interval(difference)]


def recall_of_scenes(pictures: Sequence[Picture], labels: Sequence[Sequence[str]]) -> np.ndarray:
    """Of each scene the share of its objects among the first labels."""
    found = zip(pictures, labels, strict=True)
    return np.array([len(p.objects & set(ls[:_N_LABELS])) / len(p.objects) for p, ls in found if p.objects])


def interval(values: np.ndarray) -> str:
    return f"{values.mean():+.4f} ± {_Z * values.std(ddof=1) / len(values) ** 0.5:.4f}"


if __name__ == "__main__":
    main()
