"""Reads one archive of a million tiny members: seconds, and the memory that the reader takes on the way.

python tests/benchmarks/tiny_members.py [MEMBERS]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.sources.batches import read_batches
from pipeline.sources.shard import Shard
from tests.fixtures.corpus import raw_tar, tar_header

_MEMBERS = 1_000_000
_BATCH_SIZE = 64


def write_archive(path: Path, n_members: int) -> None:
    """Images of one byte, each a sample."""
    with path.open("wb") as archive:
        for number in range(n_members):
            archive.write(raw_tar((tar_header(f"{number:07d}.jpg", size=1), b"?"))[:1024])
        archive.write(bytes(1024))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(n_members: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.tar"
        write_archive(path, n_members)
        before, started, found = peak_mib(), time.perf_counter(), Counter[str]()
        for batch in read_batches(Shard("tiny", str(path), "tar"), _BATCH_SIZE):
            found.update(sample["error"] or "read" for sample in batch["samples"][0].as_py())
        seconds = time.perf_counter() - started
    rows = ", ".join(f"{n:,} {what}" for what, n in found.items())
    print(f"{n_members:,} members: {rows}; {seconds:.1f} s, {n_members / seconds:,.0f} members/s")
    print(f"peak memory {before:.0f} MiB before reading, {peak_mib():.0f} MiB behind it")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else _MEMBERS)
