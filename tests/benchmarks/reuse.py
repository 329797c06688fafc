"""What reuse of labels saves, what it costs where there is nothing to reuse, and the index of known images.

    python tests/benchmarks/reuse.py [--only index corpus rate] --out tests/benchmarks/results/reuse-cpu.md

`index`: hashes of as many images as asked for, looked up in batches. `corpus`: a corpus of which a share is copies, and
the same images dealt to other shards, labelled with and without reuse. `rate`: a corpus without copies, jobs with and
without reuse in turns, with a recognizer that sleeps in the place of a device, so that other work hardly counts.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from record import environment, markdown_table

from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.cluster.environment import LOCAL_RAY
from pipeline.reuse.known_images import ImageIndex
from schemas import JobRecord
from tests.fixtures.corpus import jpeg, tar_bytes
from tests.fixtures.labelling import label_with
from tests.fixtures.recognizers.instant_labeler import InstantLabeler, InstantRecognizer, InstantSample
from tests.fixtures.stored.queries import read_table

Row = tuple[object, ...]
_BATCH = 64
_REUSE_COLUMNS = ("reused_from", "reused_run")
# Of a labelled image, at the rate of the fastest device that the project has been measured on.
_IMAGE_US = 1e6 / 640


def memory_mb() -> tuple[float, float]:
    """Memory of this process: its own, and pages of mapped files, which the system may take back."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(told[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
    return own, mapped


def hash_chunks(n_images: int, seed: int, size: int = 1000) -> Iterator[pa.Array]:
    rng = np.random.default_rng(seed)
    for _ in range(0, n_images, size):
        digits = rng.bytes(16 * size).hex()
        yield pa.array([digits[at : at + 32] for at in range(0, len(digits), 32)])


def measure_index(n_images: int) -> list[Row]:
    """Adds shards of 1,000 images, then looks up batches of known and of unknown images."""
    before = memory_mb()
    index, add_s, known_s = ImageIndex(), 0.0, 0.0
    for shard, hashes in enumerate(hash_chunks(n_images, seed=1)):
        began = time.perf_counter()
        index.add(hashes, shard, np.arange(len(hashes)))
        add_s += time.perf_counter() - began
    began = time.perf_counter()
    known = index.known(n_images)
    known_s = time.perf_counter() - began
    after = memory_mb()
    found_us = list(_lookup_us(known.find, hash_chunks(n_images // 50, seed=1, size=_BATCH), are_known=True))
    missed_us = list(_lookup_us(known.find, hash_chunks(n_images // 50, seed=2, size=_BATCH), are_known=False))
    looked = memory_mb()
    rows: list[Row] = [
        ("images", f"{n_images:,}"),
        ("bytes of files an image", f"{index.n_bytes / n_images:.1f}"),
        ("files", len(known.parts)),
        ("microseconds to add an image, merging included", f"{(add_s + known_s) * 1e6 / n_images:.2f}"),
        (f"microseconds a look-up, batches of {_BATCH}, known images: median", f"{median(found_us):.2f}"),
        (f"microseconds a look-up, batches of {_BATCH}, unknown images: median", f"{median(missed_us):.2f}"),
        ("the same, 99th percentile", f"{float(np.percentile(missed_us, 99)):.2f}"),
        ("share of an image at 640 images/s", f"{median(missed_us) / _IMAGE_US:.2%}"),
        ("MB of the process's own memory: before, built, looked up", _megabytes(before[0], after[0], looked[0])),
        ("MB of mapped pages: before, built, looked up", _megabytes(before[1], after[1], looked[1])),
        ("MB at most, of both", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}"),
    ]
    return rows


def _megabytes(*values: float) -> str:
    return ", ".join(f"{value:,.0f}" for value in values)


def _lookup_us(find: Any, batches: Iterable[pa.Array], *, are_known: bool) -> Iterator[float]:
    """Microseconds of an image in each batch."""
    for batch in batches:
        began = time.perf_counter()
        shard, _ = find(batch)
        yield (time.perf_counter() - began) * 1e6 / len(batch)
        assert ((shard >= 0) == are_known).all()


class _Sleeping(InstantRecognizer):
    """Takes its time for each image, as a device does beside the CPUs."""

    def __init__(self, image_s: float) -> None:
        self._image_s = image_s

    def sample(self, crops: Any, top_k: int, **options: Any) -> InstantSample:
        time.sleep(self._image_s * len(crops))
        return super().sample(crops, top_k, **options)


def sleeping_labeler(image_s: float) -> type[InstantLabeler]:
    class SleepingLabeler(InstantLabeler):
        @staticmethod
        def load_recognizer(config: LabelerConfig) -> Any:
            return _Sleeping(image_s)

    return SleepingLabeler


def write_shards(folder: Path, numbers: list[int], n_a_shard: int) -> None:
    """Shards of images of these numbers; one of a number is the same image wherever it is."""
    folder.mkdir()
    for shard, first in enumerate(range(0, len(numbers), n_a_shard)):
        members = [
            (f"{first + place:06d}.jpg", _image(n)) for place, n in enumerate(numbers[first : first + n_a_shard])
        ]
        (folder / f"{shard:05d}.tar").write_bytes(tar_bytes(members))


def _image(number: int) -> bytes:
    return jpeg(number, 320, 240)


def run_job(source: Path, store: Path, labeler: type[Labeler], address: str | None, **settings: Any) -> JobRecord:
    settings = {"batch_size": 16, "top_k": 20, **settings}
    return label_with("demo", source, store, labeler_class=labeler, address=address, **settings).record


def measure_corpus(folder: Path, n_images: int, n_a_shard: int, addresses: list[str | None]) -> list[Row]:
    """Images labelled, seconds, and whether the tables are those without reuse."""
    draw = random.Random(1)
    numbers = list(range(round(0.7 * n_images)))
    numbers += draw.choices(numbers, k=n_images - len(numbers))
    draw.shuffle(numbers)
    write_shards(folder / "corpus", numbers, n_a_shard)
    draw.shuffle(numbers)
    write_shards(folder / "other-shards", numbers, n_a_shard // 2)
    rows = []
    for address in addresses:
        where = "Ray" if address else "in the process"
        # What a process does only once, such as importing torch, counts for neither.
        run_job(folder / "other-shards", folder / f"warm {where}", Labeler, address, limit=1)
        plain, reused = folder / f"plain {where}", folder / f"reused {where}"
        for name in ("corpus", "other-shards"):
            expected = run_job(folder / name, plain, Labeler, address, run=None if name == "corpus" else name)
            record = run_job(
                folder / name, reused, Labeler, address, run=None if name == "corpus" else name, reuse=True
            )
            rows.append(
                (
                    f"{name}, {where}",
                    f"{record.n_images:,}",
                    f"{record.n_labelled - record.n_reused:,}",
                    f"{record.n_reused:,}",
                    f"{expected.seconds:.1f}",
                    f"{record.seconds:.1f}",
                    f"{expected.seconds - record.seconds:.1f}",
                )
            )
        rows[-1] = (*rows[-1], compare(plain, reused))
        rows[-2] = (*rows[-2], "as below")
    return rows


def compare(one: Path, other: Path) -> str:
    """How tables differ: in what images say, in labels' texts, and by how much in scores."""
    images = [read_table(store, "images") for store in (one, other)]
    images = [table.drop_columns(list(_REUSE_COLUMNS)) for table in images]
    labels = [read_table(store, "labels") for store in (one, other)]
    same_images = images[0].equals(images[1])
    names = ["run", "shard", "index", "rank", "label", "n_tokens"]
    same_labels = labels[0].select(names).equals(labels[1].select(names))
    if not same_labels:
        n_other = sum(a != b for a, b in zip(*(table.select(names).to_pylist() for table in labels), strict=False))
        return f"images {'equal' if same_images else 'differ'}, {n_other} of {labels[0].num_rows:,} labels differ"
    most = pc.max(pc.abs(pc.subtract(labels[0]["score"], labels[1]["score"]))).as_py()
    return f"images {'equal' if same_images else 'differ'}, labels equal, scores within {most:.1e}"


def measure_rate(folder: Path, n_images: int, n_a_shard: int, rounds: int, image_s: float, address: str | None) -> Row:
    """Jobs with and without reuse in turns, over a corpus in which no image comes twice."""
    source = folder / f"distinct {address}"
    write_shards(source, list(range(n_images)), n_a_shard)
    labeler, seconds = sleeping_labeler(image_s), {False: list[float](), True: list[float]()}
    run_job(source, folder / f"warm {address}", labeler, address)
    for number in range(rounds):
        for reuse in (False, True) if number % 2 else (True, False):
            store = folder / f"rate {address} {number} {reuse}"
            record = run_job(source, store, labeler, address, reuse=reuse)
            assert record.n_reused == 0
            assert record.n_labelled == n_images
            seconds[reuse].append(record.labelling_s)
            shutil.rmtree(store)
    ratios = sorted(without / having for without, having in zip(seconds[False], seconds[True], strict=True))
    return (
        "Ray" if address else "in the process",
        f"{n_images:,} in {n_images // n_a_shard} shards",
        f"{n_images / median(seconds[False]):.1f}",
        f"{n_images / median(seconds[True]):.1f}",
        f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=["index", "corpus", "rate"], default=["index", "corpus", "rate"])
    parser.add_argument("--hashes", type=int, default=10_000_000)
    parser.add_argument("--images", type=int, default=3_000)
    parser.add_argument("--shard", type=int, default=100, help="images of a shard")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image-ms", type=float, default=5.0, help="milliseconds that the sleeping device takes")
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="reuse-"))
    command = "python tests/benchmarks/reuse.py"
    parts = ["# Labels reused by content", environment("cpu", command)]
    addresses: list[str | None] = [None] if options.no_ray else [None, LOCAL_RAY]
    if "index" in options.only:
        parts += ["## The index", markdown_table(("what", "value"), measure_index(options.hashes))]
    if not options.no_ray and {"corpus", "rate"} & set(options.only):
        from pipeline.cluster.ray_session import start_ray

        start_ray(None, verbose=False)
    if "corpus" in options.only:
        header = ("source", "images", "labelled", "reused", "s without", "s with reuse", "s saved", "tables")
        corpus = measure_corpus(folder, options.images, options.shard, addresses)
        parts += ["## A corpus with 30 % copies, and the same images in other shards", markdown_table(header, corpus)]
    if "rate" in options.only:
        header = ("where", "images", "images/s without", "images/s with reuse", "ratio, median (least to most)")
        image_s = options.image_ms / 1e3
        rate = [
            measure_rate(folder, options.images, options.shard, options.rounds, image_s, address)
            for address in addresses
        ]
        parts += [f"## The rate without copies, {options.image_ms:g} ms an image", markdown_table(header, rate)]
    shutil.rmtree(folder)
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
