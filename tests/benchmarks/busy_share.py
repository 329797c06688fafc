"""How busy a fast device is kept by one labelling actor, and what an image costs the host.

    python tests/benchmarks/busy_share.py [--seconds 20] [--before COMMIT] [--out FILE]

The device is a sleep: 100 ms a batch of 64, as an H100 would compute (640 images/s). All around it is real: Ray reads
JPEGs of 0.05 megapixels from shards, one actor decodes, ranks what the device would have sampled, builds the rows and
sends them to the driver, which commits. The busy share is the device's seconds divided by those that passed, in the
middle of the job.

With `--before` the same is measured with the code of that commit, in turn with this one's: machines drift.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

# The checkout that is measured: this one, or that of another commit.
sys.path.insert(0, os.environ.get("BUSY_SHARE_CHECKOUT", str(Path(__file__).resolve().parents[2])))

import numpy as np
import pyarrow as pa
import torch
from record import ROOT, environment, git, markdown_table
from transformers import CLIPVisionConfig, LlamaConfig

import pipeline.cluster.environment
from model.choices import find_ranking
from model.nxtp.recognizer import Recognizer
from model.sampling import Branches, SampledBatch
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.cluster.ray_session import start_ray, stop_ray
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.recognizers.random_recognizer import random_recognizer

GOALS = {20: 0.95, 100: 0.90}
BATCH_SIZE, BATCH_S = 64, 0.1
PARTS = ("decode", "prepare", "rank", "rows", "serialise")
_IMAGE_SIZE = (256, 192)
_SHARD_IMAGES = 1024
_DISTINCT_IMAGES = 256
_DISTINCT_BATCHES = 16
_DISTINCT_LABELS = 20_000
_VOCABULARY = 32_000
_MAX_LABEL_TOKENS = 16
# Of a job's batches: while the actor starts and while the last come back the device is not what is measured.
_MIDDLE = (0.25, 0.9)


class SleepingRecognizer(Recognizer):
    """Sleeps as long as an H100 would sample, then gives branches that were made before."""

    def __init__(self, top_k: int, log: Path | None = None, n_pauses: int = 1) -> None:
        """
        Args:
            log: file that gets a line a batch: when it began, how many images it has.
            n_pauses: sleeps a batch. After each the thread needs Python's lock, as after each step of sampling.
        """
        tiny = random_recognizer(
            vision=CLIPVisionConfig(
                hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, patch_size=56
            ),
            text=LlamaConfig(
                vocab_size=_VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
            ),
        )
        super().__init__(tiny.module, tiny.preprocessor, tiny.tokenizer)
        self._batches = make_batches(top_k, self.config.delimiter_id)
        self._log, self._n_pauses, self._n_sampled = log, n_pauses, 0

    def prepare(self, crops: Sequence[np.ndarray]) -> torch.Tensor:
        """The crops stacked; a GPU would normalise them."""
        return torch.from_numpy(np.stack(crops)) if crops else torch.empty(0, 1, 1, 3)

    def sample(self, pixel_values: torch.Tensor, *arguments: Any, **options: Any) -> SampledBatch:
        n_images = len(pixel_values)
        if self._log:
            with self._log.open("a") as log:
                log.write(json.dumps([time.perf_counter(), n_images]) + "\n")
        for _ in range(self._n_pauses):
            time.sleep(n_images / BATCH_SIZE * BATCH_S / self._n_pauses)
        self._n_sampled += 1
        return self.sampled(self._n_sampled, n_images)

    def sampled(self, number: int, n_images: int = BATCH_SIZE) -> SampledBatch:
        """What the device finds in its batch of this number."""
        whole = self._batches[number % len(self._batches)]
        columns = (whole.token_ids_BKT, whole.token_probs_BKT, whole.n_tokens_BK, whole.finished_BK)
        return SampledBatch(Branches(*(column[:n_images] for column in columns)), torch.empty(n_images, 0, 0))


def make_batches(top_k: int, delimiter_id: int) -> list[Branches]:
    """Branches as a recognizer writes them: labels of 1 to 4 tokens, frequent ones and rare ones, a few unfinished."""
    rng, width = np.random.default_rng(0), _MAX_LABEL_TOKENS + 1
    label_tokens = rng.integers(16, _VOCABULARY, (_DISTINCT_LABELS, 4))
    label_lengths = rng.choice([1, 2, 3, 4], _DISTINCT_LABELS, p=[0.35, 0.4, 0.2, 0.05])
    frequencies = 1 / np.arange(2, _DISTINCT_LABELS + 2)
    batches = []
    for _ in range(_DISTINCT_BATCHES):
        labels = rng.choice(_DISTINCT_LABELS, (BATCH_SIZE, top_k), p=frequencies / frequencies.sum())
        finished = rng.random((BATCH_SIZE, top_k)) < 0.97
        lengths = np.where(finished, label_lengths[labels], width)
        places = np.arange(width)
        ids = np.where(finished[..., None], 0, rng.integers(16, _VOCABULARY, (BATCH_SIZE, top_k, width)))
        ids[..., :4] = np.where(places[:4] < lengths[..., None], label_tokens[labels], 0)
        ids[(places == lengths[..., None]) & finished[..., None]] = delimiter_id
        n_tokens = np.minimum(lengths + 1, width)
        probs = rng.random(ids.shape, np.float32) * (places < n_tokens[..., None])
        batches.append(Branches(*map(torch.from_numpy, (ids, probs.astype(np.float32), n_tokens, finished))))
    return batches


class SleepingLabeler(Labeler):
    """An actor whose device sleeps."""

    def __init__(self, config: LabelerConfig) -> None:
        # The job is told of the demo model, whose images are also looked at: whether they are such as it knows.
        super().__init__(replace(config, is_demo=False))

    @staticmethod
    def load_recognizer(config: LabelerConfig) -> Any:
        # Other processes than this one: what they measure comes back in a file, and options go to them by environment.
        n_pauses = int(os.environ["BUSY_SHARE_PAUSES"])
        return SleepingRecognizer(config.top_k, Path(os.environ["BUSY_SHARE_LOG"]), n_pauses)


def busy_share(shards: Path, folder: Path, top_k: int, n_pauses: int) -> float:
    """The device's share of the seconds in the middle of a job."""
    log = folder / f"batches-{top_k}-{n_pauses}"
    settings = LabelSettings(top_k=top_k, batch_size=BATCH_SIZE, actors=1)
    request = LabelRequest(
        source=str(shards),
        store=str(folder / f"store-{top_k}-{n_pauses}"),
        model="demo",
        settings=settings,
        labeler_class=SleepingLabeler,
        address=getattr(pipeline.cluster.environment, "LOCAL_RAY", None),
    )
    os.environ.update(BUSY_SHARE_LOG=str(log), BUSY_SHARE_PAUSES=str(n_pauses))
    start_ray(None, verbose=False)
    try:
        LabelJob(request).run()
    finally:
        stop_ray()
    return share_of(log)


def share_of(log: Path) -> float:
    """The device's share of the seconds between two batches of a log."""
    batches = [json.loads(line) for line in log.read_text().splitlines()]
    middle = batches[int(_MIDDLE[0] * len(batches)) : int(_MIDDLE[1] * len(batches)) + 1]
    device_s = sum(n_images for _, n_images in middle[:-1]) / BATCH_SIZE * BATCH_S
    return device_s / (middle[-1][0] - middle[0][0])


def host_cost(jpegs: list[bytes], top_k: int, n_batches: int) -> dict[str, float]:
    """CPU milliseconds of this thread that an image costs, by part, with the collector of garbage as in an actor."""
    recognizer = SleepingRecognizer(top_k)
    labeler = _labeler_around(recognizer, top_k)
    data = [jpegs[number % len(jpegs)] for number in range(BATCH_SIZE)]
    decoded = labeler.decode_images(data)
    crops = [image.views[0] if hasattr(image, "views") else image.view for image in decoded]
    batch = {
        **dict.fromkeys(("n_samples", "source_size", "source_etag")),
        **{"shard": "shard", "first_index": 0, "key": [f"{number:07d}" for number in range(BATCH_SIZE)], "data": data},
        **dict.fromkeys(("error", "message"), [None] * BATCH_SIZE),
        "known": None,
        **dict.fromkeys(("caption", "truth"), pa.nulls(BATCH_SIZE)),
    }
    steps: dict[str, Callable[[Any], Any]] = {
        "decode": lambda _: [labeler._decode(one) for one in data],
        "prepare": lambda _: recognizer.prepare(crops),
        "rank": lambda number: rank_sampled(labeler, recognizer.sampled(number)),
        "rows": lambda found: build_rows(batch, decoded, found),
        "serialise": _serialise,
    }
    seconds = {part: [] for part in PARTS}
    for number in range(-2, n_batches):
        given: Any = number
        for part, step in steps.items():
            started = time.thread_time()
            result = step(given)
            if number >= 0:
                seconds[part].append(time.thread_time() - started)
            given = result if part in ("rank", "rows") else number
    return {part: statistics.fmean(taken) / BATCH_SIZE * 1e3 for part, taken in seconds.items()}


def _labeler_around(recognizer: SleepingRecognizer, top_k: int) -> Labeler:
    class LoadedLabeler(Labeler):
        @staticmethod
        def load_recognizer(config: LabelerConfig) -> Any:
            return recognizer

    settings = LabelSettings(top_k=top_k)
    return LoadedLabeler(LabelerConfig.of("none", settings, dtype="float32", device="cpu", n_threads=1))


def rank_sampled(labeler: Labeler, sampled: SampledBatch) -> Any:
    """What the actor ranks of a sampled batch, by the code that is measured."""
    if hasattr(labeler.recognizer, "rank_batch"):
        from model.joined_views import join_views

        ranked = labeler.recognizer.rank_batch(sampled, labeler.config.ranking)
        places = [(image, 0) for image in range(len(ranked))]
        return join_views([ranked], [places], len(ranked), find_ranking(labeler.config.ranking), labeler.config.top_k)
    return labeler.recognizer.rank(sampled, labeler.config.ranking, keep_unfinished=True)


def build_rows(batch: dict[str, Any], decoded: list[Any], labels: Any) -> pa.Table:
    """The actor's rows of a ranked batch."""
    from pipeline.actor.labelled_rows import FoundLabels, labelled_rows, rank_listed

    return labelled_rows(batch, decoded, FoundLabels(labels, rank_listed([], [], len(decoded)), {}), {})


def _serialise(rows: pa.Table) -> int:
    """What Ray does with an actor's rows: Arrow's format for other processes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return sink.getvalue().size


def make_jpegs(n_images: int) -> list[bytes]:
    """JPEGs of 0.05 megapixels."""
    from pipeline.forecast import machine_speed

    machine_speed._SIZE = _IMAGE_SIZE
    return machine_speed.make_images(n_images)


def make_shards(folder: Path, jpegs: list[bytes], n_images: int) -> None:
    """A few hundred distinct images repeat under keys of their own."""
    import io
    import tarfile

    folder.mkdir()
    for first in range(0, n_images, _SHARD_IMAGES):
        with tarfile.open(folder / f"{first // _SHARD_IMAGES:05d}.tar", "w") as archive:
            for number in range(first, min(first + _SHARD_IMAGES, n_images)):
                data = jpegs[number % len(jpegs)]
                info = tarfile.TarInfo(f"{number:07d}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def measure(seconds: float, ks: Sequence[int], pauses: Sequence[int]) -> dict[str, Any]:
    """Busy shares and host costs of the code in this process."""
    jpegs = make_jpegs(_DISTINCT_IMAGES)
    n_images = max(4, round(seconds / BATCH_S)) * BATCH_SIZE
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch, "shards")
        make_shards(shards, jpegs, n_images)
        shares = {
            f"{top_k}/{n_pauses}": busy_share(shards, Path(scratch), top_k, n_pauses)
            for top_k in ks
            for n_pauses in pauses
        }
    gc.collect()
    return {"shares": shares, "costs": {str(top_k): host_cost(jpegs, top_k, 2 * _DISTINCT_BATCHES) for top_k in ks}}


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """A checkout of another commit."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "before")
        git("worktree", "add", "--detach", str(checkout), commit)
        try:
            yield checkout
        finally:
            git("worktree", "remove", "--force", str(checkout))


def measure_in(checkout: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What `measure` gives of the code in a checkout, in a process of its own."""
    changed = {"BUSY_SHARE_CHECKOUT": str(checkout), "PYTHONPATH": str(checkout)}
    with tempfile.NamedTemporaryFile("r", suffix=".json") as result:
        arguments = ["--seconds", str(options.seconds), "--result", result.name]
        lists = ["--k", *map(str, options.k), "--pauses", *map(str, options.pauses)]
        subprocess.run([sys.executable, __file__, *arguments, *lists], env={**os.environ, **changed}, check=True)
        return json.load(result)


def report(
    measured: dict[str, list[dict[str, Any]]], ks: Sequence[int], pauses: Sequence[int], before: str | None
) -> str:
    """The result as Markdown."""
    shares = [
        [name, top_k, n_pauses, *_shares(rounds, f"{top_k}/{n_pauses}"), GOALS.get(top_k, "-")]
        for top_k in ks
        for n_pauses in pauses
        for name, rounds in measured.items()
    ]
    costs = []
    for top_k in ks:
        for name, rounds in measured.items():
            parts = [statistics.median(each["costs"][str(top_k)][part] for each in rounds) for part in PARTS]
            costs.append([name, top_k, *(f"{value:.3f}" for value in parts), f"{sum(parts):.3f}"])
    note = f"\n`before` is commit {before}." if before else ""
    return f"""# How busy a fast device is kept

One actor whose device sleeps {BATCH_S * 1e3:.0f} ms a batch of {BATCH_SIZE} (640 images/s).
JPEGs of {" x ".join(map(str, _IMAGE_SIZE))} in shards of {_SHARD_IMAGES:,}.
They are read, decoded, ranked, sent and committed on {os.cpu_count()} cores.{note}

{environment("cpu", f"python {' '.join(sys.argv)}")}

{markdown_table(["code", "k", "sleeps a batch", "busy share, median", "each round", "goal"], shares)}

CPU milliseconds that an image costs the actor:

{markdown_table(["code", "k", *PARTS, "all"], costs)}
"""


def _shares(rounds: list[dict[str, Any]], name: str) -> tuple[str, str]:
    values = [each["shares"][name] for each in rounds]
    return f"**{statistics.median(values):.2f}**", ", ".join(f"{value:.2f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20, help="seconds of the device's work a job")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--k", type=int, nargs="+", default=[20, 100])
    parser.add_argument(
        "--pauses", type=int, nargs="+", default=[1, 17], help="sleeps a batch: 17 as sampling waits for each step"
    )
    parser.add_argument("--before", help="a commit to compare with")
    parser.add_argument("--result", type=Path, help="write what was measured here, as JSON, and nothing else")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    if options.result:
        options.result.write_text(json.dumps(measure(options.seconds, options.k, options.pauses)))
        return
    measured: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        if options.before:
            with checkout_of(options.before) as checkout:
                measured.setdefault("before", []).append(measure_in(checkout, options))
        measured.setdefault("now", []).append(measure_in(ROOT, options))
    text = report(measured, options.k, options.pauses, options.before)
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
