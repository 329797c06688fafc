"""What the commands of both comparisons share: their options, what a record says of itself, how it is written."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tests.benchmarks.record import environment


def read_options(description: str | None, n_steps: int) -> argparse.Namespace:
    """The options of the command line; makes the folder of results, and trains in one thread from here on.

    Args:
        description: the benchmark's docstring, of which the first line is shown.
        n_steps: default steps of the optimizer.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("results", type=Path, help="folder of finished trainings and of scenes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=n_steps, help="of the optimizer, in each training")
    parser.add_argument("--budget-minutes", type=float, default=60.0)
    parser.add_argument("--small", action="store_true", help="little of everything, to see that the benchmark runs")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.results.mkdir(parents=True, exist_ok=True)
    return options


def describe(script: str, options: argparse.Namespace) -> str:
    """Where and how the benchmark ran, for its record."""
    # Without the machine's own path, and without the budget: the same command goes on until all is there.
    command = f"python tests/benchmarks/{script}.py RESULTS --seeds {options.seeds} --steps {options.steps}"
    return environment("cpu", command)


def show(text: str, out: Path | None) -> None:
    """Prints a record, and writes it to a file if one is named."""
    print(text)
    if out:
        out.write_text(text)
