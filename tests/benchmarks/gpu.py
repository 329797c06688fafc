"""How fast NXTP labels on a GPU: one command of under eight minutes, one record.

Needs the project's files, torch, transformers, Pillow and numpy; for the tests that it runs, pytest. It measures the
card's matrix products, the 1.78B model with random weights in bfloat16 as the product runs it, ways to make it faster,
each by itself and together, over batch sizes and numbers of branches, what float8 does to a trained model's labels, and
runs the tests that need a GPU.

    python tests/benchmarks/gpu.py --out tests/benchmarks/results/one_shot-h100.md
    python tests/benchmarks/gpu.py --tiny                                                on a CPU, a minute

Each measure has a limit, and runs in a process that is ended when it takes longer. What failed is a row that says why.
The record is written anew after every row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.budgeted.command import add_options, supervise_command, work
from tests.benchmarks.budgeted.growing_record import GrowingRecord, Table
from tests.benchmarks.budgeted.supervision import Measure

SPEED = ("images/s", "TFLOP/s", "of bfloat16 matmul", "ms an image: encode", "prefill", "branches", "GiB")
# Seconds. Compilation may take long: it has a limit of its own, so that a compiler that does not end costs one row.
RATE_S, FIRST_WAY_S, WAY_S, COMPILED_WAY_S, SWEEP_S, DEMO_S, TESTS_S = 60, 60, 40, 100, 45, 120, 80
# A CPU compiles slowly, the more so where others use it: limits are so many times as long there.
_TINY_PATIENCE = 5


def measures(chosen: Sequence[str]) -> list[Measure]:
    """All measures in the order of what is to be known first, or the chosen ones."""
    ordered = [
        Measure("rate", RATE_S),
        Measure("way eager", FIRST_WAY_S),
        Measure("way fused, compiled, graphs", COMPILED_WAY_S),
        Measure("way fused, compiled, graphs, float8 decoder", COMPILED_WAY_S),
        Measure("way a quarter of the tokens", WAY_S),
        Measure("way a quarter of the tokens, fused, compiled, graphs", COMPILED_WAY_S),
        Measure("tests", TESTS_S),
        Measure("way graphs", WAY_S),
        Measure("sweep eager 20", SWEEP_S),
        Measure("sweep fused, compiled, graphs 20", COMPILED_WAY_S),
        Measure("demo", DEMO_S),
        Measure("way rebuilt", WAY_S),
        Measure("way rebuilt, fused", WAY_S),
        Measure("way rebuilt, compiled", COMPILED_WAY_S),
        Measure("way encoder by FlashAttention", WAY_S),
        Measure("way encoder by cuDNN attention", WAY_S),
        Measure("way fused, compiled, graphs of a compiled step", COMPILED_WAY_S),
        Measure("way fused, compiled, graphs, float8 decoder and encoder", COMPILED_WAY_S),
        Measure("sweep eager 10", SWEEP_S),
        Measure("sweep eager 100", SWEEP_S),
        Measure("sweep fused, compiled, graphs 10", COMPILED_WAY_S),
        Measure("sweep fused, compiled, graphs 100", COMPILED_WAY_S),
        # Searching takes minutes: with what is left.
        Measure("way fused, compiled by search, graphs", 120),
    ]
    unknown = set(chosen) - {measure.name for measure in ordered}
    if unknown:
        raise SystemExit(
            f"no measure is called {', '.join(sorted(unknown))}; expected some of: "
            + "; ".join(measure.name for measure in ordered)
        )
    return [measure for measure in ordered if not chosen or measure.name in chosen]


def tables(names: Sequence[str]) -> list[Table]:
    """The record's tables, for these measures."""

    def titled(prefix: str) -> dict[str, str]:
        return {name: name.removeprefix(prefix) or name for name in names if name.startswith(prefix)}

    return [
        Table("Matrix products", ("square product of noise", "TFLOP/s"), titled("rate")),
        Table(
            "Ways",
            ("way", *SPEED, "branches as eager", "first batch s"),
            titled("way "),
            "Goals at k = 20: 500 images/s in bfloat16, then 62 % of the matmul rate, and 1,000 images/s in float8 or"
            " with merged tokens; at least 95 % of the branches as eager ones. GiB: held at most, beside the product's"
            " weights, that stay loaded.",
        ),
        Table("Batch sizes and numbers of branches", ("what", *SPEED, "tokens a label"), titled("sweep ")),
        Table(
            "Labels of the demo model",
            ("numbers", "first label as float32's", "of the first 5", "of the first 10", "recall@10"),
            titled("demo"),
        ),
        Table("Tests on the GPU", ("test", "outcome"), titled("tests")),
    ]


def supervise_all(options: argparse.Namespace) -> None:
    patience = _TINY_PATIENCE if options.tiny else 1
    chosen = [replace(measure, limit_s=patience * measure.limit_s) for measure in measures(options.only)]
    record = GrowingRecord("NXTP on an accelerator", tables([measure.name for measure in chosen]), options.out)
    worker = [__file__, "--device", options.device, *(["--tiny"] if options.tiny else [])]
    supervise_command(worker, chosen, record, patience * options.minutes)


def measure_here(options: argparse.Namespace) -> None:
    from tests.benchmarks.acceleration.measures import MEASURES
    from tests.benchmarks.acceleration.session import Session

    session = Session(options.device, options.tiny)
    rows = {name: partial(rows, session) for name, rows in MEASURES.items()}
    work(options.worker, rows, options.head, options.device)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default cuda, with --tiny cpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to see that all of it runs")
    parser.add_argument("--only", nargs="+", default=(), metavar="MEASURE", help="these measures")
    parser.add_argument("--out", type=Path, help="Markdown file of the record")
    add_options(parser, minutes=7.5)
    options = parser.parse_args()
    options.device = options.device or ("cpu" if options.tiny else "cuda")
    return options


def main() -> None:
    options = arguments()
    if options.worker:
        measure_here(options)
    else:
        supervise_all(options)


if __name__ == "__main__":
    main()
