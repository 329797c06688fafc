"""Memory and speed over a long job: a million samples, with a recognizer that costs nothing.

    python tests/soak/million.py --shards 10000 --samples 100
    python tests/soak/million.py --shards 1 --samples 100000 --out tests/benchmarks/results/one-large-shard-cpu.md
    python tests/soak/million.py --shards 20000 --samples 32 --undecoded

Writes the curves beside the record, as PNG: memory of the job's processes, images and commits a second.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import psutil
from record import ROOT, environment, markdown_table

from pipeline.catalog.views import open_store
from tests.fixtures.corpus import jpeg

_EVERY_S = 2.0
# Small images: what is measured is everything but decoding and recognizing.
_WIDTH, _HEIGHT, _N_DISTINCT = 32, 24, 64
_ROLES = {
    "labelling actor": "Labeler",
    "reading workers": "ReadShards",
    "raylet": "raylet/raylet ",
    "GCS": "gcs_server",
}
_GIB = 1 << 30


@dataclass(slots=True)
class Curves:
    """What was seen at each time, seconds since the first look."""

    seconds: list[float] = field(default_factory=list)
    bytes_by_role: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in ("job", *_ROLES)})
    n_shards: list[int] = field(default_factory=list)


def make_source(folder: Path, n_shards: int, n_samples: int) -> None:
    jpegs = [jpeg(number, _WIDTH, _HEIGHT) for number in range(_N_DISTINCT)]
    folder.mkdir()
    for shard in range(n_shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for sample in range(n_samples):
                data = jpegs[(shard + sample) % _N_DISTINCT]
                info = tarfile.TarInfo(f"{shard * n_samples + sample:08d}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def watch(process: subprocess.Popen[bytes], store: Path, curves: Curves, is_over: threading.Event) -> None:
    """Looks at the job's processes and commits every few seconds."""
    job, started = psutil.Process(process.pid), time.monotonic()
    while not is_over.wait(_EVERY_S):
        with contextlib.suppress(psutil.Error, OSError):
            children = [(child, " ".join(child.cmdline())) for child in job.children(recursive=True)]
            held = {
                role: [_private_bytes(child) for child, line in children if title in line]
                for role, title in _ROLES.items()
            }
            own = _private_bytes(job)
            n_shards = sum(1 for folder in store.glob("images/run=*") for _ in folder.iterdir())
            curves.seconds.append(time.monotonic() - started)
            curves.n_shards.append(n_shards)
            curves.bytes_by_role["job"].append(own)
            for role, sizes in held.items():
                curves.bytes_by_role[role].append(max(sizes, default=0))


def _private_bytes(process: psutil.Process) -> int:
    """Memory that is a process's own: without the object store, which all share."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def thirds(values: Sequence[float]) -> list[float]:
    """The median of the first, the second and the last third."""
    third = max(1, len(values) // 3)
    return [statistics.median(values[start : start + third]) for start in (0, third, len(values) - third)]


def rates(curves: Curves, n_samples: int) -> list[float]:
    """Images committed a second, over ten looks each."""
    step = 10
    return [
        (curves.n_shards[at] - curves.n_shards[at - step])
        * n_samples
        / (curves.seconds[at] - curves.seconds[at - step])
        for at in range(step, len(curves.seconds))
    ]


def draw(curves: Curves, n_samples: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, rate) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for role, sizes in curves.bytes_by_role.items():
        memory.plot(curves.seconds, [size / _GIB for size in sizes], label=role, linewidth=1.2)
    memory.set_ylabel("private memory (GiB)")
    memory.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1))
    per_s = rates(curves, n_samples)
    rate.plot(curves.seconds[len(curves.seconds) - len(per_s) :], per_s, linewidth=1.2)
    rate.set_ylabel("images committed a second")
    rate.set_xlabel("seconds")
    for axes in (memory, rate):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def report(curves: Curves, n_shards: int, n_samples: int, seconds: float, command: str) -> str:
    # The first and the last looks see a job that starts and ends.
    busy = [at for at, done in enumerate(curves.n_shards) if 0 < done < n_shards] or list(range(len(curves.seconds)))
    rows = []
    for role, sizes in curves.bytes_by_role.items():
        values = [sizes[at] / _GIB for at in busy]
        rows.append((role, *(f"{value:.2f}" for value in thirds(values)), f"{max(sizes) / _GIB:.2f}"))
    per_s = [rate for rate in rates(curves, n_samples) if rate] or [0.0]
    listed = ", ".join(f"{value:,.0f}" for value in thirds(per_s)) if n_shards > 1 else "all in one commit"
    n_images = n_shards * n_samples
    return f"""# {n_images:,} samples in {n_shards:,} shards, a recognizer that costs nothing

{environment("cpu", command)}

{n_images:,} images in {seconds:,.0f} s from the job's start to its end: {n_images / seconds:,.0f} images and
{n_shards / seconds:,.2f} shards a second. Images committed a second in each third of the job: {listed}.

Private memory, GiB, of the largest process of each kind (median of each third of the job; peak):

{markdown_table(("process", "first third", "second", "last", "peak"), rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--undecoded", action="store_true", help="look at no image: others decode, one driver commits")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown and PNG")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="million-"))
    make_source(folder / "source", options.shards, options.samples)
    started, curves, is_over = time.monotonic(), Curves(), threading.Event()
    command = [sys.executable, str(ROOT / "tests/soak/instant_job.py"), str(folder / "source"), str(folder / "store")]
    command += ["--address", "local", *(["--undecoded"] if options.undecoded else [])]
    process = subprocess.Popen(command)
    watcher = threading.Thread(target=watch, args=(process, folder / "store", curves, is_over), daemon=True)
    watcher.start()
    code = process.wait()
    seconds = time.monotonic() - started
    is_over.set()
    watcher.join()
    query = "SELECT count(*), count(DISTINCT image_id), count(*) FILTER (status = 'labelled') FROM images"
    counts = open_store(str(folder / "store")).execute(query).fetchall()
    expected = options.shards * options.samples
    assert (code, counts) == (0, [(expected,) * 3]), (code, counts)
    text = report(curves, options.shards, options.samples, seconds, f"python {' '.join(sys.argv)}")
    print(text)
    if options.out:
        options.out.write_text(text)
        draw(curves, options.samples, options.out.with_suffix(".png"))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
