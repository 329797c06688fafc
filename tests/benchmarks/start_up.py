"""What a small job takes in its own process and on a Ray of its own, and where the seconds go.

    python tests/benchmarks/start_up.py [--rounds 3] [--out tests/benchmarks/results/start-up-cpu.md]

Two sources: the 200 scenes that come along, in four shards, and a folder of ten of them. Ways take turns within a
round, since other programs may disturb: in the job's process, the same with threads of torch that spin while they wait
(as they do by default), and on Ray (`--address local`). `demo` is the first way with queries and a report behind it.
Each is the command in a process of its own. A table of another way than the first with other rows ends the benchmark.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow.parquet as pq
from record import ROOT, environment, markdown_table

from jobs.demo.shipped import SHARDS
from pipeline.store.store import Store
from schemas import JobRecord

GOAL_S = 9.0
_N_PICTURES = 10
_IN_PROCESS = "in its process"
# What GNU's OpenMP does by default.
_SPINNING = {"GOMP_SPINCOUNT": "300000"}


@dataclass(frozen=True, slots=True)
class Way:
    """How a source is labelled."""

    name: str
    words: tuple[str, ...] = ()
    variables: Mapping[str, str] | None = None


WAYS = (
    Way(_IN_PROCESS),
    Way("the same, spinning", variables=_SPINNING),
    Way("on Ray", ("--address", "local")),
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What one command took."""

    wall_s: float
    cpu_s: float
    """Of the command's own process, all threads; what Ray's processes take is not in it."""
    load: float
    """Programs that wanted a core on the average of the last minute, this one among them."""
    job: JobRecord


def make_pictures(folder: Path) -> Path:
    """A folder of ten scenes."""
    folder.mkdir()
    with tarfile.open(sorted(Path(SHARDS).glob("*.tar"))[0]) as archive:
        images = [member for member in archive if member.name.endswith(".jpg")]
        for member in images[:_N_PICTURES]:
            content = archive.extractfile(member)
            assert content is not None
            (folder / member.name).write_bytes(content.read())
    return folder


def run(verb: str, store: Path, *words: str, variables: Mapping[str, str] | None = None) -> Taken:
    """Runs the command to its end. Exits where it fails."""
    command = [sys.executable, "-m", "jobs.cli", verb, *words, "--store", str(store)]
    before, started = os.times(), time.perf_counter()
    finished = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(variables or {})}, capture_output=True, text=True, check=False
    )
    wall_s, after = time.perf_counter() - started, os.times()
    if finished.returncode:
        sys.exit(finished.stderr)
    (name,) = Store(str(store)).run_names()
    (job,) = Store(str(store)).run(name).read_jobs()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(wall_s, cpu_s, os.getloadavg()[0], job)


def check_same(store: Path, other: Path) -> None:
    """Exits where the tables of two stores differ."""
    for path in store.glob("*/run=*/*.parquet"):
        name = path.relative_to(store)
        if not pq.read_table(path).equals(pq.read_table(other / name)):
            sys.exit(f"{name} differs between {store} and {other}")


def measure_round(sources: Mapping[str, Path], folder: Path) -> dict[tuple[str, str], Taken]:
    """One command of each way and source, and the demo."""
    taken = {}
    for source, path in sources.items():
        for way in WAYS:
            store = folder / f"{source}, {way.name}"
            taken[source, way.name] = run(
                "label", store, str(path), "--top-k", "10", *way.words, variables=way.variables
            )
            check_same(folder / f"{source}, {WAYS[0].name}", store)
    taken["200 scenes", "demo"] = run("demo", folder / "demo")
    return taken


def report(rounds: list[dict[tuple[str, str], Taken]], command: str) -> str:
    """The result as Markdown: medians, and all walls."""
    rows = []
    for source, way in rounds[0]:
        taken = [of_round[source, way] for of_round in rounds]
        against = [of_round[source, way].wall_s / of_round[source, _IN_PROCESS].wall_s for of_round in rounds]
        jobs = [each.job for each in taken]
        rows.append(
            (
                source,
                way,
                f"{statistics.median(each.wall_s for each in taken):.1f}",
                f"{statistics.median(against):.2f}",
                f"{statistics.median(each.cpu_s for each in taken):.1f}",
                f"{statistics.median(job.ray_start_s for job in jobs):.1f}",
                f"{statistics.median(job.workers_start_s for job in jobs):.1f}",
                f"{statistics.median(job.labelling_s for job in jobs):.1f}",
                ", ".join(f"{each.wall_s:.1f}" for each in taken),
                f"{min(each.load for each in taken):.0f} to {max(each.load for each in taken):.0f}",
            )
        )
    header = (
        *("source", "way", "wall s", "to the first way", "CPU s", "starting Ray", "loading", "labelling"),
        *("walls of the rounds", "load"),
    )
    return f"""# Start-up of small jobs

{environment("cpu", command)}
- {len(rounds)} rounds, in which the ways take turns; medians, and of ratios the median of those within a round
- goal: the demo, run again, under {GOAL_S:g} s; tables of all ways are equal

{markdown_table(header, rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = {"200 scenes": Path(SHARDS), "10 pictures": make_pictures(folder / "pictures")}
        rounds = []
        for number in range(options.rounds):
            (folder / str(number)).mkdir()
            rounds.append(measure_round(sources, folder / str(number)))
    text = report(rounds, f"python {' '.join(sys.argv)}")
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
