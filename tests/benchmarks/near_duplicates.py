"""Hashes of what images look like: what they cost, which copies they find, and how long a store looks for them.

    python tests/benchmarks/near_duplicates.py [PHOTOGRAPHS] [--rows 100000 1000000] [--out FILE]

PHOTOGRAPHS is a folder of tars; without it the demo scenes are taken, which have much in common. Milliseconds are CPU
time of decoding one image for a crop of 224 pixels, with and without the hash in turn, the best of each. Rows of a
store have hashes with half of the bits set; a tenth of them differs from another in up to eight bits.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import duckdb
import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageEnhance
from record import ROOT, environment, markdown_table

from model import ImagePreprocessor
from pipeline.actor.decoding import DecodedImage, decode
from pipeline.catalog.connection import read_sql

_SCENES = ROOT / "jobs" / "demo" / "shards"
_DISTANCES = (0, 2, 4, 6, 8, 10)
# Of a store of more rows only the default is asked for: others take minutes.
_ASKED, _FEW = (4, 2, 6), 200_000
_MEGAPIXELS = (0.27, 2, 12)
_COMMAND = "python tests/benchmarks/near_duplicates.py PHOTOGRAPHS"
_PREPROCESSOR = ImagePreprocessor(image_size=224)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photographs", type=Path, nargs="?", help="folder of tars")
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    pictures = list(read_pictures(options.photographs or _SCENES, options.images))
    text = "\n\n".join(
        [
            "# Images that look alike",
            environment(
                "cpu", " ".join(["python tests/benchmarks/near_duplicates.py PHOTOGRAPHS", *options_of(sys.argv)])
            ),
            f"## What the hash costs\n\n{cost_table(pictures[:10], options.rounds)}",
            f"## Which copies it finds, of {len(pictures)} pictures\n\n{distance_table(pictures)}",
            f"## How long a store looks for them\n\n{query_table(options.rows)}",
        ]
    )
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def options_of(arguments: list[str]) -> list[str]:
    """What follows the folder, but for where the record goes."""
    given = arguments[next((at for at, one in enumerate(arguments) if one.startswith("--")), len(arguments)) :]
    return given[: given.index("--out")] if "--out" in given else given


def read_pictures(folder: Path, n: int) -> Iterator[Image.Image]:
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if n and member.name.endswith((".jpg", ".png")):
                    data = archive.extractfile(member)
                    assert data is not None
                    yield Image.open(io.BytesIO(data.read())).convert("RGB")
                    n -= 1


def encode(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def see(data: bytes, *, with_phash: bool) -> DecodedImage:
    return decode(data, _PREPROCESSOR, with_phash=with_phash)


def cost_table(pictures: list[Image.Image], n_rounds: int) -> str:
    rows = []
    for megapixels in _MEGAPIXELS:
        enlarged = []
        for picture in pictures:
            scale = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
            size = round(picture.width * scale), round(picture.height * scale)
            enlarged.append(encode(picture.resize(size, Image.Resampling.BICUBIC)))
        best = np.full((2, len(enlarged)), np.inf)
        for _ in range(n_rounds):
            for number, data in enumerate(enlarged):
                for way in (0, 1):
                    best[way, number] = min(best[way, number], see(data, with_phash=bool(way)).cpu_s)
        without, with_hash = best.mean(axis=1) * 1e3
        of_hash = with_hash - without
        rows.append([f"{megapixels:g}", f"{without:.2f}", f"{of_hash:.2f}", f"{of_hash / without:.0%}"])
    return markdown_table(["megapixels", "decoding, ms", "hash, ms", "more"], rows)


def with_bar(image: Image.Image) -> Image.Image:
    """A line of text's place across the lower end."""
    changed = image.copy()
    box = (0, round(image.height * 0.92), image.width, image.height)
    ImageDraw.Draw(changed).rectangle(box, fill="white")
    return changed


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = round(image.width * share), round(image.height * share)
    return image.crop((width, height, image.width - width, image.height - height))


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "quality 90": encode,
    "quality 40": lambda image: encode(image, 40),
    "half the size": lambda image: encode(image.resize((image.width // 2, image.height // 2))),
    "a quarter of the size": lambda image: encode(image.resize((image.width // 4, image.height // 4))),
    "a third brighter": lambda image: encode(ImageEnhance.Brightness(image).enhance(1.33)),
    "in grey": lambda image: encode(image.convert("L").convert("RGB")),
    "1 % cut off each side": lambda image: encode(cropped(image, 0.01)),
    "5 % cut off each side": lambda image: encode(cropped(image, 0.05)),
    "a white bar below": lambda image: encode(with_bar(image)),
    "mirrored": lambda image: encode(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def distance(one: int, other: int) -> int:
    return ((one ^ other) & (1 << 64) - 1).bit_count()


def distance_table(pictures: list[Image.Image]) -> str:
    """Shares of copies, and of pairs of different pictures, that differ in at most so many bits."""
    own = [see(encode(picture, 95), with_phash=True).phash for picture in pictures]
    found = {}
    for name, copy in COPIES.items():
        pairs = zip(own, (see(copy(picture), with_phash=True).phash for picture in pictures), strict=True)
        found[name] = [distance(one, other) for one, other in pairs if one is not None and other is not None]
    hashed = [one for one in own if one is not None]
    found["another picture"] = [distance(one, other) for one, other in combinations(hashed, 2)]
    rows = []
    for name, distances in found.items():
        array, digits = np.array(distances), 2 if name == "another picture" else 0
        shares = [f"{(array <= most).mean():.{digits}%}" for most in _DISTANCES]
        rows.append([name, len(array), f"{np.median(array):g}", array.min(), *shares])
    return markdown_table(["copy", "pairs", "median", "least", *(f"<= {most}" for most in _DISTANCES)], rows)


def make_hashes(n_rows: int) -> np.ndarray:
    """int64 [n_rows]."""
    rng = np.random.default_rng(0)
    bits = np.argsort(rng.random((n_rows, 64)), axis=1) < 32
    alike, like = rng.choice(n_rows, (2, n_rows // 10), replace=False)
    bits[alike] = bits[like] ^ (np.argsort(rng.random((len(alike), 64)), axis=1) < rng.integers(0, 9, (len(alike), 1)))
    return np.packbits(bits, axis=1).view(">i8")[:, 0].astype(np.int64)


def query_table(n_rows: list[int]) -> str:
    rows = []
    for n in n_rows:
        connection = duckdb.connect()
        columns = {
            "run": pa.repeat("run", n),
            "shard": pa.array([f"{number // 1000:05}" for number in range(n)]),
            "index": pa.array(np.arange(n) % 1000, pa.int32()),
            "key": pa.array([str(number) for number in range(n)]),
            "image_id": pa.array(range(n), pa.int64()),
            "phash": pa.array(make_hashes(n)),
        }
        connection.register("images", pa.table(columns))
        for statement in read_sql("macros").split(";\n"):
            if "CREATE MACRO near_duplicates" in statement:
                connection.execute(statement)
        for most in _ASKED if n <= _FEW else _ASKED[:1]:
            started = time.perf_counter()
            ((n_found,),) = connection.execute(f"SELECT count(*) FROM near_duplicates({most})").fetchall()
            rows.append([f"{n:,}", most, f"{n_found:,}", f"{time.perf_counter() - started:.1f}"])
    return markdown_table(["images", "distance", "found", "seconds"], rows)


if __name__ == "__main__":
    main()
