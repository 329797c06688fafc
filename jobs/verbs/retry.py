"""`tagstream retry`: labels rejected samples again."""

from __future__ import annotations

from typing import Any

import click

from jobs.closing.closing import closing
from jobs.closing.summary import PendingJob
from jobs.console.config_file import read_config
from jobs.console.options import (
    changed_run_option,
    closing_options,
    config_option,
    lock_option,
    log_format_option,
    ray_address_option,
    store_argument,
    verbose_option,
)
from jobs.console.process import command_line
from jobs.verbs.label import run_job
from pipeline.text import counted
from schemas import JobRecord


@click.command
@store_argument
@changed_run_option
@click.option("--error", help="Only samples rejected with this error, as `tagstream status` names it.")
@click.option("--stage", type=click.Choice(["read", "decode"]), help="Only samples rejected at this stage.")
@config_option("TOML with settings: limits, batch_size.")
@ray_address_option
@lock_option
@closing_options
@log_format_option
@verbose_option
def retry(store: str, config: str | None, summary: str | None, notify: str | None, **flags: Any) -> None:
    """Read and label the rejected samples of a run in STORE again, and no others.

    Use it after a limit was raised (max_sample_bytes, max_image_pixels, max_sample_s) or a file was repaired. All other
    rows stay as they are.

    \b
    tagstream retry s3://bucket/tags --error ImageTooLarge --config larger.toml
    """
    # Brings in Ray, which takes seconds to import.
    from pipeline.labelling.retry import RetryJob, RetryRequest

    pending = PendingJob("retry", "", store)
    with closing(pending.summarize, summary, notify):
        given, origin = read_config(config), config or "--config"
        request = RetryRequest(store=store, given=given, origin=origin, command=command_line(), **flags)
        pending.job = RetryJob(request)
        _report(run_job(pending.job).record, store)


def _report(record: JobRecord, store: str) -> None:
    if not record.n_images:
        click.echo(f"Nothing to do: run {record.run} has no such rejected samples that can be read again.")
        return
    click.echo(
        f"Tried {counted(record.n_images, 'rejected sample')} of {counted(record.n_shards_committed, 'shard')} again: "
        f"{record.n_labelled:,} labelled, {record.n_rejected:,} still rejected, {record.seconds:,.1f} s"
    )
    click.echo(f"Run {record.run} in {store}")
