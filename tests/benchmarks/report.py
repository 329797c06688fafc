"""What `tagstream report` costs of a large store: seconds, memory, size of the page; and how fluent the page is.

    python tests/benchmarks/report.py --images 1000000 [--samples 500,2000] [--browser] [--folder DIR] [--out FILE]

The store is generated (tests/benchmarks/generated_store.py). Its source is one archive of 10,000 photograph-sized JPEGs
under as many names as there are shards: each is read like any other, but only the first comes from the disk.

With --browser each page is opened in Chromium, without a GPU, and scrolled for four seconds, as fast as hands fling it
and from its top to its end: until when the first picture is there, and how long frames take.
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
    browsing: Browsing | None


@dataclass(frozen=True, slots=True)
class Browsing:
    """Of a page in a browser."""

    first_picture_s: float
    flung_ms: float
    """Of the frames while it is scrolled by `FLING_PX_PER_S`, 95 % take no longer."""
    swept_ms: float
    """The same, from its top to its end."""


def make_source(folder: Path, n_shards: int) -> None:
    """`part/00000.tar`, ...: one archive under many names."""
    images = [jpeg(seed, 640, 480) for seed in range(N_DIFFERENT)]
    (folder / "part").mkdir(parents=True)
    first = folder / "part" / "00000.tar"
    first.write_bytes(tar_bytes((f"{index:05}.jpg", images[index % N_DIFFERENT]) for index in range(SHARD_IMAGES)))
    for number in range(1, n_shards):
        (folder / "part" / f"{number:05}.tar").hardlink_to(first)


def measure(store: str, out: Path, n_pictures: int, with_browser: bool) -> Cost:
    command = [sys.executable, "-m", "jobs.cli", "report", store, "--out", str(out), "--sample", str(n_pictures)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--overwrite"])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{command} failed")
    return Cost(n_pictures, seconds, usage.ru_maxrss * 1024, out.stat().st_size, browse(out) if with_browser else None)


FLING_PX_PER_S = 6000
SCROLL_S = 4
SCROLL = """async ([pxPerS, seconds]) => {
  const intervals = [];
  const started = performance.now();
  let before = started;
  while (before - started < 1000 * seconds) {
    const now = await new Promise(requestAnimationFrame);
    intervals.push(now - before);
    before = now;
    scrollTo(0, (pxPerS * (now - started)) / 1000);
  }
  return intervals.slice(1);
}"""


def browse(page_file: Path) -> Browsing:
    from playwright.sync_api import sync_playwright

    from tests.fixtures.browser import launch, opened

    with sync_playwright() as playwright, launch(playwright) as browser:
        started = time.perf_counter()
        with opened(browser, page_file) as page:
            page.locator(".card img").first.evaluate("(image) => image.decode()")
            first_picture_s = time.perf_counter() - started
            height = page.evaluate("() => document.documentElement.scrollHeight - innerHeight")
            speeds = (FLING_PX_PER_S, height / SCROLL_S)
            return Browsing(first_picture_s, *(frame_ms(page.evaluate(SCROLL, [speed, SCROLL_S])) for speed in speeds))


def frame_ms(intervals: list[float]) -> float:
    """Ninety-five in a hundred are no longer."""
    return sorted(intervals)[len(intervals) * 95 // 100]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--samples", default="500,2000")
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--folder", type=Path, help="Keeps source and store there, and finds them again.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        store = str(folder / "store")
        if not (folder / "store").exists():
            make_source(folder / "source", options.images // SHARD_IMAGES)
            make_store(store, options.images, str(folder / "source"))
        page = Path(temporary) / "report.html"
        costs = [measure(store, page, int(n), options.browser) for n in options.samples.split(",")]
        archive_bytes = (folder / "source" / "part" / "00000.tar").stat().st_size
    record = describe(options.images, archive_bytes, costs)
    print(record)
    if options.out:
        options.out.write_text(record)


def describe(n_images: int, archive_bytes: int, costs: list[Cost]) -> str:
    """The result as Markdown."""
    # Here, since it imports torch.
    from record import environment, markdown_table

    header = ["pictures", "s", "peak GB", "page MB"]
    if costs[0].browsing:
        header += ["first picture s", f"frame ms at {FLING_PX_PER_S:,} px/s", f"top to end in {SCROLL_S} s"]
    rows = [[*_figures(cost), *_frames(cost.browsing)] for cost in costs]
    return f"""# A report of {n_images:,} images

{environment("cpu", f"python {' '.join(sys.argv)}")}
- {n_images // SHARD_IMAGES:,} shards of {SHARD_IMAGES:,} images and {archive_bytes / 1e6:,.0f} MB, 20 labels an image
- goal: {GOALS} on 2 cores

{markdown_table(header, rows)}
"""


def _figures(cost: Cost) -> list[str]:
    return [
        f"{cost.n_pictures:,}",
        f"{cost.seconds:.1f}",
        f"{cost.peak_bytes / 1e9:.2f}",
        f"{cost.page_bytes / 1e6:.1f}",
    ]


def _frames(browsing: Browsing | None) -> list[str]:
    if browsing is None:
        return []
    return [f"{browsing.first_picture_s:.2f}", f"{browsing.flung_ms:.0f}", f"{browsing.swept_ms:.0f}"]


if __name__ == "__main__":
    main()
