"""The run that a verb reads, told on stderr where the user did not name it."""

from __future__ import annotations

import click

from pipeline.store.run_choice import choose_run
from pipeline.store.store import Store


def find_chosen_run(store: str, given: str | None) -> str:
    """Name of the run that is meant; says which on stderr, where the user did not say it. Raises StoreError.

    Args:
        store: directory or URL.
        given: a name, its beginning, or `latest`; None takes the latest.
    """
    choice = choose_run(Store(store), given)
    if choice.note is not None:
        click.echo(choice.note, err=True)
    return choice.run
