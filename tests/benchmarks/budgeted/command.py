"""What commands that measure within a budget share: their options, the processes that they start, what they print."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from tests.benchmarks.budgeted.budget import Budget
from tests.benchmarks.budgeted.events import Event
from tests.benchmarks.budgeted.growing_record import GrowingRecord
from tests.benchmarks.budgeted.supervision import Measure, ProcessWorker, supervise
from tests.benchmarks.budgeted.work import Rows, print_event, run_measures

# A model's hub may be out of reach: nothing is asked of it.
_OFFLINE = {"HF_HUB_OFFLINE": "1"}


def add_options(parser: argparse.ArgumentParser, minutes: float) -> None:
    """Adds `--minutes`, and what a command hands to its own processes: `--worker` and `--head`."""
    parser.add_argument("--minutes", type=float, default=minutes, help="time for all measures together")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--head", help=argparse.SUPPRESS)


def supervise_command(
    worker: Sequence[str], measures: Sequence[Measure], record: GrowingRecord, minutes: float
) -> None:
    """Runs measures in processes of a command, prints what happens and, in the end, the record.

    Args:
        worker: the script that is started, with its options.
    """

    def tell(event: Event) -> None:
        line = record.take(event)
        if line is not None:
            print(line, flush=True)

    def start(left: Sequence[Measure]) -> ProcessWorker:
        # The first process alone says where it is measured.
        head = ["--head", shlex.join(["python", *sys.argv])] if len(left) == len(measures) else []
        names = (measure.name for measure in left)
        return ProcessWorker([sys.executable, *worker, *head, "--worker", *names], {**os.environ, **_OFFLINE})

    supervise(measures, start, Budget(60 * minutes), tell)
    print("\n" + record.markdown(), flush=True)


def work(names: Sequence[str], rows_of: Mapping[str, Rows], head: str | None, device: str) -> None:
    """Runs measures in this process and tells of them on stdout.

    Args:
        head: the command that people gave, where this process is to say how and on what it is measured.
    """
    import torch

    # The record's head imports torch, too.
    from record import environment

    for line in environment(device, head).splitlines() if head else ():
        print_event(Event("text", text=line))
    if device == "cpu":
        torch.set_num_threads(1)
    run_measures(names, rows_of, print_event)
