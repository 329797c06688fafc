"""A labelling job as the command does it, with a recognizer that costs nothing.

python tests/soak/instant_job.py SOURCE STORE [--seconds-a-batch 0.05] [--batch-size 4] [--address HOST:PORT|local]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click

from jobs.verbs.label import report, run_job
from pipeline.errors import TagstreamError
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.processes.ray_processes import waiting_read
from tests.fixtures.recognizers.instant_labeler import InstantLabeler, UndecodedLabeler, paced
from tests.fixtures.recognizers.timed_labeler import timed


def _labeler_class(options: argparse.Namespace) -> type[InstantLabeler]:
    if options.undecoded:
        return UndecodedLabeler
    if options.decode_s is not None:
        return timed(options.decode_s, options.label_s)
    return paced(options.seconds_a_batch)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("store")
    parser.add_argument("--seconds-a-batch", type=float, default=0.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--address", help="Ray to label on")
    parser.add_argument("--decode-s", type=float, help="seconds that decoding an image takes, asleep")
    parser.add_argument("--label-s", type=float, default=0.0, help="the same of labelling, with --decode-s")
    parser.add_argument("--decode-in", default="auto")
    parser.add_argument("--read-after", type=Path, help="on Ray, read of a shard one batch before this file is there")
    parser.add_argument("--undecoded", action="store_true", help="look at no image")
    parser.add_argument("--resource", help="Ray's resource that actors need one of")
    options = parser.parse_args()
    if options.read_after:
        # Brings in Ray, which takes seconds to import.
        from pipeline.dataflow import actor_pool

        actor_pool.read_batches_or_failure = waiting_read(actor_pool.read_batches_or_failure, options.read_after)
    request = LabelRequest(
        source=options.source,
        store=options.store,
        model="demo",
        settings=LabelSettings(
            top_k=5,
            batch_size=options.batch_size,
            no_progress_timeout_s=120,
            decode_in=options.decode_in,
            actor_resources={options.resource: 1} if options.resource else {},
        ),
        address=options.address,
        labeler_class=_labeler_class(options),
    )
    try:
        report(run_job(LabelJob(request)), options.store)
    except TagstreamError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
