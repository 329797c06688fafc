"""Fuzzes one target with coverage as the guide; needs atheris (`pip install atheris`).

    python tests/fuzz/fuzz.py tar --minutes 15

What it finds becomes a file in tests/fuzz/findings/<target>/, which the suite reads from then on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(include=["tarfile", "PIL", "pipeline", "model", "tomllib", "json"]):
    from tests.fuzz.targets import TARGETS, seeds

FINDINGS = Path(__file__).parent / "findings"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()
    found = FINDINGS / options.target
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(options.target)):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        # An input may take 20 seconds and 3 GB; those are for inputs of some kilobytes.
        limits = [
            f"-max_total_time={round(options.minutes * 60)}",
            "-timeout=20",
            "-rss_limit_mb=3000",
            "-max_len=16384",
        ]
        arguments = [sys.argv[0], corpus, *limits, f"-artifact_prefix={found}/", "-print_final_stats=1"]
        atheris.Setup(arguments, TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
