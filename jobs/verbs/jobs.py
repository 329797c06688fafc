"""`tagstream jobs`: lists, shows, follows and stops the jobs of a Ray cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from jobs.console.live_line import clock
from jobs.console.options import format_option, head_address_option
from jobs.console.output import print_rows
from jobs.sending.follow import follow

if TYPE_CHECKING:
    from pipeline.cluster.submission import JobCluster, SubmittedJob

_N_LAST_LINES = 10


@click.command("jobs")
@click.argument("job_id", metavar="[ID]", required=False)
@head_address_option
@click.option("--follow", "is_followed", is_flag=True, help="Print its log until it ends; exit with its exit code.")
@click.option("--stop", "is_stopped", is_flag=True, help="Stop it; it commits the shards that are complete.")
@format_option("table", "csv", "json")
def jobs(job_id: str | None, address: str | None, is_followed: bool, is_stopped: bool, output: str) -> int:
    """List the jobs of a Ray cluster, the latest first, or show job ID with the end of its log.

    \b
    tagstream jobs --address http://head:8265
    """
    if job_id is None and (is_followed or is_stopped):
        raise click.UsageError("--follow and --stop are for one job; expected its ID")
    # Brings in Ray, which takes seconds to import.
    from pipeline.cluster.submission import JobCluster

    cluster = JobCluster(address)
    if job_id is None:
        rows = [_row(job) for job in cluster.jobs()]
        print_rows(["id", "verb", "status", "started", "took", "message"], rows, output)
        return 0
    if is_stopped:
        _stop(cluster, job_id)
    if is_followed:
        cluster.job(job_id)
        return follow(cluster, job_id)
    if not is_stopped:
        _show(cluster, job_id)
    return 0


def _row(job: SubmittedJob) -> list[Any]:
    words = job.command.split()
    return [job.job_id, words[0] if words else "", job.status, _local(job.started), _duration(job), job.message]


def _stop(cluster: JobCluster, job_id: str) -> None:
    # Brings in Ray, which takes seconds to import.
    from pipeline.cluster.submission import STOP_WAIT_S

    if cluster.job(job_id).exit_code is not None or not cluster.stop(job_id):
        click.echo(f"Job {job_id} has ended already.", err=True)
        return
    click.echo(f"Job {job_id} was told to stop; it has {STOP_WAIT_S} s to commit what is whole.", err=True)


def _show(cluster: JobCluster, job_id: str) -> None:
    job = cluster.job(job_id)
    lines = {
        "job": job.job_id,
        "command": f"tagstream {job.command}",
        "status": job.status if job.exit_code is None else f"{job.status}, exit code {job.exit_code}",
        "started": _local(job.started),
        "took": _duration(job),
        "message": job.message,
    }
    for name, value in lines.items():
        click.echo(f"{name:8} {value or ''}".rstrip())
    click.echo()
    for line in cluster.last_lines(job_id, _N_LAST_LINES):
        click.echo(line)


def _local(moment: datetime | None) -> str | None:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None


def _duration(job: SubmittedJob) -> str | None:
    return clock(((job.ended or datetime.now(UTC)) - job.started).total_seconds()) if job.started else None
