"""`tagstream bench`: how fast this machine is at each stage."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from jobs.console.live_line import LiveLine, clock
from jobs.console.options import FiniteRange, format_option, model_option
from jobs.console.output import print_rows
from jobs.console.process import NOTHING_KEPT, job_process


@click.command
@model_option
@click.option(
    "--seconds", type=FiniteRange(min=0.1), default=10.0, show_default=True, help="Time for each measurement."
)
@click.option("--folder", help="Write generated data below this folder; it is deleted.  [default: temporary folder]")
@click.option("--store", help="Commit below this directory or s3:// prefix; the data is deleted.  [default: --folder]")
@format_option("table", "csv", "json")
def bench(output: str, **options: Any) -> None:
    """Measure how many images this machine reads, decodes and labels a second, and how many shards it commits. Each
    stage runs alone, on generated data; the result is the median of five repetitions, with the slowest and the fastest.
    Use it to compare machines; `tagstream plan` predicts a whole job. Files that were read before are in memory.

    \b
    tagstream bench
    tagstream bench --model ./nxtp --folder /mnt/shards --store s3://bucket/scratch --format json
    """
    # Brings in Ray, which takes seconds to import.
    from pipeline.forecast.machine_speed import SpeedJob, SpeedRequest

    job = SpeedJob(SpeedRequest(**options))
    with job_process(**NOTHING_KEPT), LiveLine(lambda elapsed_s: f"{job.phase} · {clock(elapsed_s)} elapsed"):
        measured = job.run()
    if output == "json":
        click.echo(json.dumps(asdict(measured), indent=2))
        return
    rows = [(speed.what, speed.median, speed.low, speed.high, speed.unit) for speed in measured.speeds]
    columns = ("stage", "median", "slowest", "fastest", "unit")
    if output == "csv":
        print_rows(columns, rows, output)
        return
    for name, value in {"date": measured.date, **measured.hardware, "data": measured.data}.items():
        click.echo(f"{name:<10}{value}")
    click.echo(f"{'versions':<10}{', '.join(f'{name} {version}' for name, version in measured.versions.items())}\n")
    print_rows(columns, rows)
