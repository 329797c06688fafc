"""Kills a labelling job's processes at random until it has done so N times; every table must come out as undisturbed.

    python tests/soak/kills.py --kills 100 [--seed 0] [--out tests/benchmarks/results/soak-kills.md]

A round labels a source into a fresh store. While a job runs, one of its processes is killed every few seconds; a job
that ends is run again, until one goes through. Then the store is compared, row for row, with an undisturbed one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import psutil
from record import ROOT, environment, markdown_table

from pipeline.store.store import Store
from pipeline.upkeep.verification import verify_run
from tests.fixtures.corpus import jpeg, sample_members, tar_bytes, write_tars
from tests.fixtures.processes.ray_processes import ray_processes
from tests.fixtures.stored.queries import read_table

N_SHARDS, N_SAMPLES = 40, 24
PACE = ["--seconds-a-batch", "0.05", "--batch-size", "4", "--address", "local"]
# What is killed, and the title of its process; the job itself has none.
VICTIMS = {
    "the job": "",
    "labelling actor": "PacedLabeler",
    "reading worker": "ReadShards",
    "node (raylet)": "raylet/raylet ",
    "head (GCS)": "gcs_server",
}
WORDS = ("Error:", "Stopped")
# Between kills: some meet a job that starts, more one that labels, and some jobs get to their end.
_PAUSES_S = (0.5, 15)
# For a process of the kind that was drawn to show up.
_PATIENCE_S = 10


@dataclass(slots=True)
class Tally:
    """What happened so far."""

    kills: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    """Jobs that did not go through, by what was killed last."""
    n_rounds: int = 0
    n_silent: int = 0
    """Jobs that ended without a word, though it was not they who were killed."""
    n_unprovoked: int = 0
    """Jobs that failed though nothing of them was killed."""
    n_wrong: int = 0
    """Rounds whose tables are not those of an undisturbed job."""


def make_source(folder: Path) -> None:
    """Shards with a few faults, so that rejected rows are at stake too."""
    write_tars(folder, N_SHARDS, N_SAMPLES)
    members = [("cut.jpg", jpeg(1)[:400]), *sample_members("good", 2), ("alone.txt", b"no image")]
    (folder / "faults.tar").write_bytes(tar_bytes(members))


def start_job(source: Path, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tests/soak/instant_job.py"), str(source), str(store)]
    return subprocess.Popen(
        [*command, *PACE],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Ray gives a lost head up after a minute else.
        env={**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "3"},
    )


def kill_one(process: subprocess.Popen[str], rng: random.Random) -> str | None:
    """Kills one of the job's processes, of a kind drawn from all; returns which, None where none of it came in time."""
    kind = rng.choice(list(VICTIMS))
    deadline = time.monotonic() + _PATIENCE_S
    # Actors and readers live for a part of a job only.
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):
            job = psutil.Process(process.pid)
            if found := ray_processes(VICTIMS[kind], job) if VICTIMS[kind] else [job]:
                rng.choice(found).kill()
                return kind
        time.sleep(0.05)
    return None


def disturb(process: subprocess.Popen[str], rng: random.Random, tally: Tally, n_kills: int) -> None:
    """Lets a job run to its end, and kills at random until it gets there."""
    last = ""
    while process.poll() is None:
        try:
            process.wait(rng.uniform(*_PAUSES_S))
        except subprocess.TimeoutExpired:
            if sum(tally.kills.values()) < n_kills and (killed := kill_one(process, rng)):
                tally.kills[killed] += 1
                last = killed
    assert process.stderr is not None
    errors = process.stderr.read()
    if process.returncode != 0 and not last:
        tally.n_unprovoked += 1
        print(f"unprovoked: {errors[-500:]}", flush=True)
    elif process.returncode != 0:
        tally.ends[last] += 1
        # A job that is killed before it has begun cannot speak.
        if last != "the job" and not any(word in errors for word in WORDS):
            tally.n_silent += 1
            print(f"without a word, after {last}: {errors[-500:]}", flush=True)


def run_round(source: Path, store: Path, undisturbed: Path, rng: random.Random, tally: Tally, n_kills: int) -> None:
    """One store, from nothing to whole."""
    while True:
        process = start_job(source, store)
        disturb(process, rng, tally, n_kills)
        if process.returncode == 0:
            break
    tally.n_rounds += 1
    same = all(read_table(store, table).equals(read_table(undisturbed, table)) for table in ("images", "labels"))
    run = Store(str(store)).run_names()[0]
    if not same or not verify_run(Store(str(store)).run(run)).is_whole:
        tally.n_wrong += 1
        print(f"WRONG: {store} is kept", flush=True)
    else:
        shutil.rmtree(store)


def report(tally: Tally, seconds: float, command: str) -> str:
    rows = [(name, tally.kills[name], tally.ends[name]) for name in VICTIMS]
    rows.append(("all", sum(tally.kills.values()), sum(tally.ends.values())))
    return f"""# Random kills of a labelling job

{environment("cpu", command)}
- a round: {N_SHARDS + 1} shards of {N_SAMPLES} images into a fresh store, labelled by as many jobs as it takes

{markdown_table(("killed (SIGKILL)", "times", "jobs that ended by it"), rows)}

{tally.n_rounds} rounds in {seconds / 60:.0f} minutes. Stores that differ from an undisturbed one in any row, or in
which `status --verify` finds damage: **{tally.n_wrong}**. Jobs that
ended by another process's death without saying so: **{tally.n_silent}**. Jobs that failed though nothing was killed:
**{tally.n_unprovoked}**.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rng, tally, started = random.Random(options.seed), Tally(), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    make_source(folder / "source")
    undisturbed = start_job(folder / "source", folder / "undisturbed")
    _, errors = undisturbed.communicate()
    assert undisturbed.returncode == 0, errors
    while sum(tally.kills.values()) < options.kills:
        store = folder / f"round-{tally.n_rounds}"
        run_round(folder / "source", store, folder / "undisturbed", rng, tally, options.kills)
        print(f"{sum(tally.kills.values())} kills, {tally.n_rounds} rounds, {tally.n_wrong} wrong", flush=True)
    text = report(tally, time.monotonic() - started, f"python {' '.join(sys.argv)}")
    print(text)
    if options.out:
        options.out.write_text(text)
    if not tally.n_wrong:
        shutil.rmtree(folder)
    sys.exit(1 if tally.n_wrong or tally.n_silent or tally.n_unprovoked else 0)


if __name__ == "__main__":
    main()
