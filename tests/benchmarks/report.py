"""What `tagstream report` costs of a large store: seconds, memory, size of the page.

    python tests/benchmarks/report.py --images 1000000 [--samples 500,2000] [--folder DIR] [--out FILE]

The store is generated (tests/benchmarks/generated_store.py). Its source is one archive of 10,000 photograph-sized JPEGs
under as many names as there are shards: each is read like any other, but only the first comes from the disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from generated_store import SHARD_IMAGES, make_store

from tests.fixtures.corpus import jpeg, tar_bytes

GOALS = "under 60 s and 2 GB"
N_DIFFERENT = 100


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one report."""

    n_pictures: int
    seconds: float
    peak_bytes: int
    page_bytes: int


def make_source(folder: Path, n_shards: int) -> None:
    """`part/00000.tar`, ...: one archive under many names."""
    images = [jpeg(seed, 640, 480) for seed in range(N_DIFFERENT)]
    (folder / "part").mkdir(parents=True)
    first = folder / "part" / "00000.tar"
    first.write_bytes(tar_bytes((f"{index:05}.jpg", images[index % N_DIFFERENT]) for index in range(SHARD_IMAGES)))
    for number in range(1, n_shards):
        (folder / "part" / f"{number:05}.tar").hardlink_to(first)


def measure(store: str, out: Path, n_pictures: int) -> Cost:
    command = [sys.executable, "-m", "jobs.cli", "report", store, "--out", str(out), "--sample", str(n_pictures)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--overwrite"])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{command} failed")
    return Cost(n_pictures, seconds, usage.ru_maxrss * 1024, out.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--samples", default="500,2000")
    parser.add_argument("--folder", type=Path, help="Keeps source and store there, and finds them again.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        store = str(folder / "store")
        if not (folder / "store").exists():
            make_source(folder / "source", options.images // SHARD_IMAGES)
            make_store(store, options.images, str(folder / "source"))
        costs = [measure(store, Path(temporary) / "report.html", int(n)) for n in options.samples.split(",")]
        archive_bytes = (folder / "source" / "part" / "00000.tar").stat().st_size
    record = describe(options.images, archive_bytes, costs)
    print(record)
    if options.out:
        options.out.write_text(record)


def describe(n_images: int, archive_bytes: int, costs: list[Cost]) -> str:
    """The result as Markdown."""
    # Here, since it imports torch.
    from record import environment, markdown_table

    rows = [
        [cost.n_pictures, f"{cost.seconds:.1f}", f"{cost.peak_bytes / 1e9:.2f}", f"{cost.page_bytes / 1e6:.1f}"]
        for cost in costs
    ]
    return f"""# A report of {n_images:,} images

{environment("cpu", f"python {' '.join(sys.argv)}")}
- {n_images // SHARD_IMAGES:,} shards of {SHARD_IMAGES:,} images and {archive_bytes / 1e6:,.0f} MB, 20 labels an image
- goal: {GOALS} on 2 cores

{markdown_table(["pictures", "s", "peak GB", "page MB"], rows)}
"""


if __name__ == "__main__":
    main()
