"""Follows a job on a cluster as if it ran here: its progress is one live line, its exit code the command's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from jobs.console.live_line import draw, is_progress
from jobs.console.paste import to_paste

if TYPE_CHECKING:
    from pipeline.cluster.submission import JobCluster

# Lines that Ray writes before the command's own.
_LINES_OF_RAY = ("Runtime env is setting up.", "Running entrypoint for job ")


def follow(cluster: JobCluster, job_id: str) -> int:
    """Prints a job's log until the job has ended, and returns its exit code. Ctrl-C does not stop the job."""
    is_terminal = sys.stderr.isatty()
    line = ""
    try:
        for line in cluster.follow(job_id):
            if any(words in line for words in _LINES_OF_RAY):
                continue
            if is_terminal and is_progress(line):
                draw(line)
                continue
            if is_terminal:
                draw("")
            click.echo(line, err=is_progress(line))
    except KeyboardInterrupt:
        about = to_paste("jobs", job_id, "--address", cluster.address)
        click.echo(
            f"\nNo longer following; the job goes on. To follow it again: {about} --follow; to stop it: {about} --stop",
            err=True,
        )
        raise
    if is_terminal:
        draw("")
    job = cluster.job(job_id)
    if job.exit_code:
        # Where the job said itself why it failed, Ray repeats its last line as the message.
        message = "" if job.message == line.strip() else job.message
        click.echo(f"Job {job_id}: {job.status}, exit code {job.exit_code}. {message}".rstrip(), err=True)
    return job.exit_code or 0
