"""What devices wait for: the seconds between shards, waves and at the end, with a model that takes long to load.

    python tests/benchmarks/waves.py --out tests/benchmarks/results/waves-cpu.md

Shards are uneven, waves short, and the labeler sleeps in the place of a device, which this machine's cores do not
disturb: what is seen is the scheduling. Each actor notes when it begins and ends a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import ray
from record import environment, markdown_table

from pipeline.actor.labeler import LabelerConfig
from pipeline.labelling import shard_flow
from pipeline.labelling.job import LabelJob
from pipeline.labelling.pending import cut_waves
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.corpus import jpeg, tar_bytes
from tests.fixtures.recognizers.instant_labeler import InstantLabeler, InstantRecognizer, InstantSample

_BATCH = 16


class _Paced(InstantRecognizer):
    """Takes its time to load and for each batch, and notes when."""

    def __init__(self, load_s: float, batch_s: float, log: str) -> None:
        self._batch_s, self._log = batch_s, log
        began = time.time()
        time.sleep(load_s)
        self._note("load", began)

    def sample(self, crops: Sequence[np.ndarray], top_k: int, **options: Any) -> InstantSample:
        began = time.time()
        time.sleep(self._batch_s * len(crops) / _BATCH)
        sampled = super().sample(crops, top_k, **options)
        self._note("batch", began)
        return sampled

    def _note(self, what: str, began: float) -> None:
        with Path(self._log, str(os.getpid())).open("a") as file:
            file.write(json.dumps([what, began, time.time()]) + "\n")


def make_labeler(load_s: float, batch_s: float, log: str) -> type[InstantLabeler]:
    class WaitingLabeler(InstantLabeler):
        @staticmethod
        def load_recognizer(config: LabelerConfig) -> Any:
            return _Paced(load_s, batch_s, log)

    return WaitingLabeler


def make_source(folder: Path, n_shards: int, seed: int) -> int:
    """Shards of 8 to 160 images, the last of which is the largest; returns how many images there are."""
    rng, images = random.Random(seed), [jpeg(number, 32, 24) for number in range(64)]
    folder.mkdir()
    sizes = [round(8 * 20 ** rng.random()) for _ in range(n_shards - 1)] + [160]
    for shard, size in enumerate(sizes):
        members = ((f"{number:04d}.jpg", images[number % 64]) for number in range(size))
        (folder / f"{shard:04d}.tar").write_bytes(tar_bytes(members))
    return sum(sizes)


def summarise(log: Path, n_actors: int) -> dict[str, float]:
    """Seconds of all actors together, from the first batch's begin to the last one's end."""
    events = [json.loads(line) for file in log.iterdir() for line in file.read_text().splitlines()]
    batches = [(began, ended) for what, began, ended in events if what == "batch"]
    first, last = min(began for began, _ in batches), max(ended for _, ended in batches)
    busy = sum(ended - began for began, ended in batches)
    times = sorted({moment for batch in batches for moment in batch})
    none_busy = sum(
        until - since
        for since, until in pairwise(times)
        if until - since > 0 and not any(began <= since and until <= ended for began, ended in batches)
    )
    ends: dict[str, float] = defaultdict(float)
    for file in log.iterdir():
        for what, _, ended in map(json.loads, file.read_text().splitlines()):
            ends[file.name] = max(ends[file.name], ended if what == "batch" else 0.0)
    tail = sum(last - ended for ended in sorted(ends.values())[-n_actors:])
    return {
        "loads": float(sum(what == "load" for what, _, _ in events)),
        "labelling_s": last - first,
        "busy_share": busy / (n_actors * (last - first)),
        "idle_s": n_actors * (last - first) - busy,
        "none_busy_s": none_busy,
        "tail_s": tail,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--wave", type=int, default=16, help="shards a wave")
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--load-s", type=float, default=10.0)
    parser.add_argument("--batch-s", type=float, default=0.8)
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="waves-"))
    (folder / "log").mkdir()
    n_images = make_source(folder / "source", options.shards, seed=0)
    # More CPUs than there are: sleeping takes none.
    ray.init(address="local", num_cpus=3 * options.actors + 2, include_dashboard=False, log_to_driver=False)
    shard_flow.cut_waves = partial(cut_waves, size=options.wave)  # type: ignore[attr-defined]
    settings = LabelSettings(top_k=5, batch_size=_BATCH, actors=options.actors, no_progress_timeout_s=120)
    request = LabelRequest(
        source=str(folder / "source"),
        store=str(folder / "store"),
        model="demo",
        settings=settings,
        address=ray.get_runtime_context().gcs_address,
        labeler_class=make_labeler(options.load_s, options.batch_s, str(folder / "log")),
    )
    started = time.perf_counter()
    record = LabelJob(request).run().record
    seconds = time.perf_counter() - started
    assert record.n_images == n_images, (record.n_images, n_images)
    found = summarise(folder / "log", options.actors)
    rows = [
        ("seconds of the job", f"{seconds:.1f}"),
        ("of it from the first batch to the last", f"{found['labelling_s']:.1f}"),
        ("models loaded", f"{found['loads']:.0f}"),
        ("busy share of the devices", f"{found['busy_share']:.2f}"),
        ("idle seconds, all devices together", f"{found['idle_s']:.1f}"),
        ("seconds in which no device worked", f"{found['none_busy_s']:.1f}"),
        ("idle seconds at the job's end, all together", f"{found['tail_s']:.1f}"),
    ]
    n_waves = -(-options.shards // options.wave)
    text = f"""# {n_images:,} images in {options.shards} uneven shards, {n_waves} waves, {options.actors} actors

{environment("cpu", f"python {' '.join(sys.argv)}")}

A model that takes {options.load_s:g} s to load and {options.batch_s:g} s for a batch of {_BATCH}.

{markdown_table(("what", "measured"), rows)}
"""
    print(text)
    if options.out:
        options.out.write_text(text)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
