"""`tagstream review import`: brings what people decided back into the store."""

from __future__ import annotations

import getpass
from typing import Any

import click

from jobs.console.options import read_run_option, store_argument
from jobs.console.paste import to_paste
from pipeline.reviews.files import TOOLS
from pipeline.reviews.job import import_reviews
from pipeline.text import counted


@click.group
def review() -> None:
    """Bring what people decided about labels back into a store.

    \b
    tagstream review import STORE review-random-1a2b3c4d-ada.json --from page
    """


@review.command("import")
@store_argument
@click.argument("file")
@click.option("--from", "tool", required=True, type=click.Choice(TOOLS))
@click.option("--reviewer", help="Who reviewed, where the file does not say it.  [default: the user's name]")
@read_run_option
def import_file(store: str, file: str, tool: Any, reviewer: str | None, run: str | None) -> None:
    """Add the decisions of FILE to a run of STORE: yes, no or unsure for labels, and labels that were missing.

    Nothing is overwritten: a second reviewer's decisions stand beside the first's. Of what one person says of a label
    again the latest counts, so that a file may come twice, or once more when it has grown. In SQL they are the view
    `reviews`; `review_agreement(run)` compares reviewers.

    \b
    tagstream review import STORE review-random-1a2b3c4d-ada.json --from page
    tagstream review import STORE review/review.csv --from csv --reviewer ada
    tagstream review import STORE export.json --from label-studio
    """
    added = import_reviews(store, run, file, tool, reviewer or _user())
    chosen, n_before = added.run, added.n_decisions - added.n_new
    if added.n_new:
        before = f"; it had {n_before:,} more of the file already" if n_before else ""
        click.echo(f"Added {counted(added.n_new, 'decision')} to run {chosen}{before}")
    else:
        click.echo(f"Nothing to add: run {chosen} has {counted(n_before, 'decision')} of the file already")
    if added.n_undrawn:
        click.echo(
            f"Note: decisions on {counted(added.n_undrawn, 'image')} count in no estimate, since no sample of the run "
            "has drawn them",
            err=True,
        )
    click.echo("next: " + to_paste("recall", store, "--run", chosen, "--truth", "reviews"))


def _user() -> str:
    """The user's name; empty where a container does not tell it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
