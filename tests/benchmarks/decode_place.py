"""Where images are decoded, on a cluster of a node with a device and one with CPUs alone.

    python tests/benchmarks/decode_place.py [--shards 24] [--images 20] [--out tests/benchmarks/results/...]

Two raylets on this machine, of which one has a resource that stands for a GPU. Files are photographs of 12 megapixels
and travel as such; decoding one (80 ms) and labelling it (10 ms) is sleep, since this machine has not the cores. Each
row is a labelling job. Its device is busy for the share of the time from its first result to its last, and rows are
those of the first job.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa
from PIL import Image
from record import environment, markdown_table

from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.recognizers.timed_labeler import timed
from tests.fixtures.servers.two_nodes import two_nodes
from tests.fixtures.stored.queries import read_table

DECODE_S, LABEL_S = 0.08, 0.01
PLACES = ("actor", "read", "auto")
# Reads and labels; its device is a resource of this name.
GPU_NODE = {"num_cpus": 3, "resources": {"gpu_node": 1}}
_SIZE = (4000, 3000)
_N_PHOTOGRAPHS = 8


def make_shards(folder: Path, n_shards: int, n_images: int, size: tuple[int, int]) -> None:
    """Tars of photographs. Some repeat, with a comment of their own at the end."""
    rng = np.random.default_rng(0)
    photographs = [_photograph(rng, size) for _ in range(_N_PHOTOGRAPHS)]
    folder.mkdir()
    for shard in range(n_shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(n_images):
                data = photographs[number % _N_PHOTOGRAPHS] + f"{shard:06d}-{number:06d}".encode()
                info = tarfile.TarInfo(f"{number:06d}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def _photograph(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    layers = [Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)) for cells in (6, 60, 900)]
    images = [np.asarray(layer.resize(size, Image.Resampling.BICUBIC), np.float32) for layer in layers]
    mixed = images[0] * 0.7 + images[1] * 0.2 + images[2] * 0.1
    buffer = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def run_job(source: Path, store: Path, address: str, place: str, options: argparse.Namespace) -> list[object]:
    """Labels the source. Returns: cells of a row."""
    settings = LabelSettings(top_k=5, batch_size=10, decode_in=place, actor_resources={"gpu_node": 1})
    request = LabelRequest(
        source=str(source),
        store=str(store),
        model="demo",
        settings=settings,
        address=address,
        labeler_class=timed(options.decode_s, options.label_s),
    )
    record = LabelJob(request).run().record
    busy = record.seconds_by_stage["infer"] / record.labelling_s
    chosen = record.workers["decode_in"] if place == "auto" else ""
    return [place, chosen, f"{record.labelling_s:.1f}", f"{record.images_per_s:.1f}", f"{min(1.0, busy):.2f}"]


def tables(store: Path) -> list[pa.Table]:
    return [read_table(store, name) for name in ("images", "labels")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--images", type=int, default=20, help="images of a shard")
    parser.add_argument("--cpus", type=int, nargs="+", default=[0, 4, 8], help="CPUs of the node without a device")
    parser.add_argument("--size", type=int, nargs=2, default=_SIZE, help="width and height of the photographs")
    parser.add_argument("--decode-s", type=float, default=DECODE_S)
    parser.add_argument("--label-s", type=float, default=LABEL_S)
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    rows: list[list[object]] = []
    expected: list[pa.Table] | None = None
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        make_shards(source, options.shards, options.images, tuple(options.size))
        n_bytes = sum(path.stat().st_size for path in source.iterdir())
        for n_cpus in options.cpus:
            with two_nodes(GPU_NODE, {"num_cpus": n_cpus}) as (address, _):
                for place in PLACES:
                    store = Path(scratch) / f"store-{n_cpus}-{place}"
                    cells = run_job(source, store, address, place, options)
                    expected = expected or tables(store)
                    rows.append([n_cpus, *cells, "yes" if tables(store) == expected else "NO"])
                    print(rows[-1], file=sys.stderr, flush=True)
    header = ["CPUs of the other node", "decode_in", "chosen", "labelling s", "images/s", "device busy", "rows equal"]
    text = f"""# Where images are decoded

{options.shards * options.images:,} photographs of {options.size[0]} x {options.size[1]} in {options.shards} tars, \
{n_bytes / 1e6:,.0f} MB; decoding {options.decode_s * 1e3:g} ms and labelling {options.label_s * 1e3:g} ms an image, \
both as sleep. One actor, with a device on a node of {GPU_NODE["num_cpus"]} CPUs.

{environment("cpu", f"python {' '.join(sys.argv)}")}

{markdown_table(header, rows)}
"""
    if options.out:
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
