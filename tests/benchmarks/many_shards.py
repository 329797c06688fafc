"""What a store of very many small shards costs: listing, a job with nothing to do, `status`, `sql`, compaction.

    python tests/benchmarks/many_shards.py --shards 100000 --out tests/benchmarks/results/many-shards-cpu.md
    python tests/benchmarks/many_shards.py --shards 100000 --folder /tmp/many --keep

One shard is labelled by a recognizer that costs nothing. All others are its files under other names, in the files and
their footers too. Each command runs in a process of its own. The files were just written, so that none comes from a
disk; and those of the source are as young as their commits, which is the case that costs a resumed job most.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow.parquet as pq

from pipeline.store.digest import with_digest
from pipeline.store.ledger import LedgerWriter, read_ledger
from pipeline.store.ownership import ShardVersion
from pipeline.store.store import Store
from tests.fixtures.corpus import write_tars

_FIRST = "shard-00000000"
# A file system allows an inode only so many names.
_LINKS_A_FILE = 50_000
_MARK = b"d" * 32
_ROOT = Path(__file__).resolve().parents[2]
_JOB = str(_ROOT / "tests/soak/instant_job.py")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a command."""

    seconds: float
    cpu_s: float
    """Of all of its threads: what other work on the machine hardly changes."""
    peak_bytes: int


def shard_name(number: int) -> str:
    return f"shard-{number:08d}"


def make_corpus(folder: Path, n_shards: int, n_images: int) -> None:
    """A source and a store in which all of it is labelled."""
    source, store = folder / "source", folder / "store"
    write_tars(source, 1, n_images)
    first = source / f"{_FIRST}.tar"
    next(source.glob("*.tar")).rename(first)
    label(source, store)
    for start in range(0, n_shards, _LINKS_A_FILE):
        origin = source / f"{shard_name(start)}.tar"
        if start:
            shutil.copy2(first, origin)
        for number in range(start + 1, min(n_shards, start + _LINKS_A_FILE)):
            os.link(origin, source / f"{shard_name(number)}.tar")
    for table in ("images", "labels"):
        (path,) = store.glob(f"{table}/run=*/{_FIRST}.parquet")
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(partial(_copy, path), _ranges(1, n_shards), chunksize=1))
    note_copies(store, n_shards)


def note_copies(url: Path, n_shards: int) -> None:
    """Notes the copies in the run's ledger, as the job did with the first."""
    store = Store(str(url))
    run = store.run(store.run_names()[0])
    first = f"{_FIRST}.parquet"
    (row,) = read_ledger(run.filesystem, run.layout, {first: run.committed().files[first]}).to_pylist()
    sizes, version = (row["images_bytes"], row["labels_bytes"]), ShardVersion(row["source_size"], row["source_etag"])
    counts = {name: row[name] for name in row if name.startswith("n_") or name == "rejects"}
    ledger = LedgerWriter(run.filesystem, run.layout)
    for number in range(1, n_shards):
        ledger.note(f"{shard_name(number)}.parquet", sizes, version, counts)
    ledger.flush()


def _ranges(start: int, stop: int, size: int = 5_000) -> Iterator[range]:
    return (range(first, min(stop, first + size)) for first in range(start, stop, size))


def _copy(path: Path, numbers: Sequence[int]) -> None:
    """The file of the first shard under the names of others."""
    content = path.read_bytes()
    file = pq.ParquetFile(path)
    digest = file.metadata.metadata[b"tagstream.digest"]
    schema = file.metadata.metadata[b"ARROW:schema"]
    content = content.replace(digest, _MARK)
    decoded = base64.b64decode(schema)
    for number in numbers:
        name = shard_name(number).encode()
        renamed = content.replace(schema, base64.b64encode(decoded.replace(_FIRST.encode(), name)))
        path.with_name(f"{name.decode()}.parquet").write_bytes(
            with_digest(renamed.replace(_FIRST.encode(), name), _MARK)
        )


def label(source: Path, store: Path) -> None:
    subprocess.run([sys.executable, _JOB, str(source), str(store)], check=True, stdout=subprocess.DEVNULL)


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured, by its name in the table."""
    source, store = str(folder / "source"), str(folder / "store")
    listing = "import sys; from pipeline.sources.listing import find_source; find_source(sys.argv[1])"
    committed = (
        "import sys; from pipeline.store.store import Store; store = Store(sys.argv[1]); "
        "store.run(store.run_names()[0]).committed()"
    )
    sql = [sys.executable, "-m", "jobs.cli", "sql", store]
    top = "SELECT label, count(*) AS n FROM labels GROUP BY label ORDER BY n DESC LIMIT 10"
    asked = {
        "`label`, nothing to do": [sys.executable, _JOB, source, store],
        "`status`": [sys.executable, "-m", "jobs.cli", "status", store],
        "`sql`: SELECT count(*) FROM images": [*sql, "SELECT count(*) FROM images"],
        "`sql`: the ten most frequent labels": [*sql, top],
    }
    return {
        "listing the source": [sys.executable, "-c", listing, source],
        "listing the commits": [sys.executable, "-c", committed, store],
        **asked,
        "`compact`": [sys.executable, "-m", "jobs.cli", "compact", store],
        **{f"{name}, compacted": command for name, command in asked.items()},
    }


def measure(command: Sequence[str]) -> Cost:
    """What a process costs, of which the interpreter's start is a part."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=_ROOT)
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=4, help="images a shard")
    parser.add_argument("--folder", type=Path, help="where the corpus is made, or was made before")
    parser.add_argument("--keep", action="store_true", help="leave the corpus where it is")
    parser.add_argument("--only", default="", help="what is measured: names that contain this")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="many-shards-"))
    if not (folder / "store").exists():
        folder.mkdir(exist_ok=True)
        make_corpus(folder, options.shards, options.images)
    rows = []
    for name, command in commands(folder).items():
        if options.only in name:
            cost = measure(command)
            rows.append((name, f"{cost.seconds:,.1f}", f"{cost.cpu_s:,.1f}", f"{cost.peak_bytes / 1e6:,.0f}"))
            print(*rows[-1], flush=True)
    # Brings torch along, and what is big here stands in the peak of each command.
    from record import environment, markdown_table

    text = f"""# {options.shards:,} shards of {options.images} images

{environment("cpu", f"python {' '.join(sys.argv)}")}

{markdown_table(("what", "seconds", "CPU seconds", "peak MB"), rows)}
"""
    print(text)
    if options.out:
        options.out.write_text(text)
    if not options.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
