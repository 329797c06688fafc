"""`tagstream vocabulary`: names of a store that a vocabulary does not know yet."""

from __future__ import annotations

from dataclasses import astuple, fields

import click

from jobs.console.chosen_run import find_chosen_run
from jobs.console.options import EXISTING_FILE, format_option, only_run_option, store_argument
from jobs.console.output import print_rows
from pipeline.analysis.new_names import NewName, find_new_names
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store


@click.command
@store_argument
@click.option("--new", "new", is_flag=True, required=True, help="Names that no vocabulary mentions.")
@only_run_option
@click.option(
    "--vocabulary",
    "vocabularies",
    multiple=True,
    type=EXISTING_FILE,
    help="TOML or CSV; may be repeated, the first one names labels.  [default: built in]",
)
@format_option("table", "csv", "json")
def vocabulary(store: str, new: bool, run: str | None, vocabularies: tuple[str, ...], output: str) -> None:
    """List names of STORE that no vocabulary mentions, those of the most images first: since when, on how many images,
    how their scores lie (lowest, quarters, highest), and three images that have them at the highest rank.

    A vocabulary mentions a name as alias, wider term, compound or kept word, or by allow, deny, sensitive or display.
    Names that it does not allow are listed, too. What was decided of a name goes into the file, and the name is gone.

    \b
    tagstream vocabulary STORE --new --vocabulary mine.toml
    """
    words = [read_vocabulary(path) for path in vocabularies or (None,)]
    chosen = None if run is None else find_chosen_run(store, run)
    connection = open_store(store, words[0].without_limit(), run=chosen)
    found = find_new_names(connection, Store(store), words)
    columns = [field.name for field in fields(NewName)]
    rows = [(name.name, name.images, name.since.isoformat(timespec="minutes"), *astuple(name)[3:]) for name in found]
    print_rows(columns, rows, output)
    if output == "table":
        click.echo(f"\n{len(found):,} names that are not in {', '.join(one.version for one in words)}")
