"""`tagstream submit`: runs a verb as a job of a Ray cluster."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from jobs.console.options import head_address_option
from jobs.console.paste import to_paste
from jobs.sending.follow import follow
from jobs.sending.sent_command import prepare
from pipeline.cluster.environment import profile_left_behind

PACKAGES = ("schemas", "model", "pipeline", "jobs")
_ABOUT_CLUSTERS = {"submit", "jobs"}
_PROFILE_STAYS = (
    "Note: the AWS profile {} is not sent, and the nodes log in by what they have themselves. To send its keys, first: "
    'eval "$(aws configure export-credentials --format env)"'
)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("verb")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@head_address_option
@click.option("--no-wait", is_flag=True, help="Print the job's id and leave the job running.")
@click.pass_context
def submit(context: click.Context, verb: str, arguments: tuple[str, ...], address: str | None, no_wait: bool) -> int:
    """Run `tagstream VERB ARGUMENTS` on a Ray cluster, follow its log, and exit with its exit code.

    The cluster receives this code, the files that options name, AWS_* variables, HF_TOKEN and HF_ENDPOINT, which
    everybody with access to Ray's dashboard can read. It installs nothing. Folders have to be URLs, or absolute paths
    on the cluster. Ctrl-C stops following, not the job; `tagstream jobs ID --stop` stops the job.

    \b
    tagstream submit label s3://bucket/shards --store s3://bucket/tags --address http://head:8265
    """
    verbs = context.find_root().command
    command = verbs.get_command(context, verb) if isinstance(verbs, click.Group) else None
    if command is None or verb in _ABOUT_CLUSTERS:
        raise click.UsageError(f"there is no verb {verb} to run on a cluster; expected one of `tagstream --help`")
    sent = prepare(command, arguments, context.find_root())

    # Brings in Ray, which takes seconds to import.
    from pipeline.cluster.submission import JobCluster, Upload

    cluster = JobCluster(address)
    upload = Upload([folder_of(name) for name in PACKAGES], sent.files)
    job_id, n_bytes = cluster.submit(verb, ["python", "-m", "jobs.cli", verb, *sent.arguments], upload)
    files = f" and {len(sent.files)} files" if sent.files else ""
    click.echo(f"Sent {n_bytes / 1e6:.1f} MB (code{files}) to {cluster.address}, job {job_id}", err=True)
    if profile := profile_left_behind():
        click.echo(_PROFILE_STAYS.format(profile), err=True)
    if no_wait:
        click.echo(job_id)
        about = to_paste("jobs", job_id, "--address", cluster.address)
        click.echo(f"Follow it: {about} --follow; stop it: {about} --stop", err=True)
        return 0
    return follow(cluster, job_id)


def folder_of(package: str) -> Path:
    """The folder of a package of this program. Raises ClickException where it has none."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException(f"the package {package} is not where it was imported from")
    return Path(spec.submodule_search_locations[0])
