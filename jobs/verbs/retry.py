"""`tagstream retry`: tries rejected samples again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobs.closing.closing import JobInHand, closing
from jobs.console.config_file import read_config
from jobs.console.options import closing_options, log_format_option
from jobs.console.process import command_line

if TYPE_CHECKING:
    from schemas import JobRecord


@click.command(short_help="Try rejected samples again.")
@click.argument("store")
@click.option("--run", help="Which run.  [default: the only one]")
@click.option("--error", help="Only samples rejected with this error, as `tagstream status` names it.")
@click.option("--stage", type=click.Choice(["read", "decode"]), help="Only samples rejected at this stage.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="TOML with settings: limits, batch_size.")
@click.option("--address", help="Ray cluster to join.  [default: that whose job this is, or this machine]")
@click.option("--lock", is_flag=True, help="Exit 5 at once where another such job runs.")
@closing_options
@log_format_option
@click.option("--verbose", is_flag=True, help="Show Ray's own log.")
def retry(store: str, config: str | None, summary: str | None, notify: str | None, **flags: Any) -> None:
    """Read and label the rejected samples of a run in STORE again, and no others.

    For samples that another limit (max_sample_bytes, max_image_pixels, max_sample_s) or a mended file lets through. All
    other rows stay as they are.

    \b
    tagstream retry s3://bucket/tags --error ImageTooLarge --config larger.toml
    """
    from jobs.verbs.label import run_job
    from pipeline.labelling.retry import RetryJob, RetryRequest

    in_hand = JobInHand("retry", "", store)
    with closing(in_hand.summarize, summary, notify):
        given, origin = read_config(config), config or "--config"
        request = RetryRequest(store=store, given=given, origin=origin, command=command_line(), **flags)
        in_hand.job = RetryJob(request)
        _report(run_job(in_hand.job).record, store)


def _report(record: JobRecord, store: str) -> None:
    if not record.n_images:
        click.echo(f"Nothing to do: run {record.run} has no such rejected samples that can be read again.")
        return
    click.echo(
        f"Tried {record.n_images:,} rejected samples of {record.n_shards_committed:,} shards again: "
        f"{record.n_labelled:,} labelled, {record.n_rejected:,} still rejected, {record.seconds:,.1f} s"
    )
    click.echo(f"Run {record.run} in {store}")
