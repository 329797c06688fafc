"""`tagstream sql`: queries a store in SQL."""

from __future__ import annotations

import io
import sys
from functools import partial
from pathlib import Path, PurePosixPath

import click

from jobs.console.chosen_run import find_chosen_run
from jobs.console.options import (
    EXISTING_FILE,
    labels_options,
    only_run_option,
    overwrite_option,
    store_argument,
    vocabulary_option,
)
from jobs.console.output import columns_and_rows, print_result
from jobs.console.paste import to_paste
from jobs.console.row_formats import write_csv, write_json, write_parquet
from jobs.verbs.sql_prompt import run_prompt
from jobs.verbs.sql_query import run_interruptibly, split_queries
from pipeline.catalog.connection import Connection, query_rows, run_query
from pipeline.catalog.label_choice import LabelChoice
from pipeline.catalog.result_file import ResultFile, find_result_file, stream_batches
from pipeline.catalog.views import count_files, open_store
from pipeline.naming.thresholds import read_thresholds
from pipeline.naming.vocabulary import read_vocabulary

_FILE_FORMATS = ("csv", "json", "parquet")
# A query opens each that it needs, which takes a fifth of a millisecond.
_MANY_FILES = 20_000


@click.command
@store_argument
@click.argument("query", required=False)
@only_run_option
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", *_FILE_FORMATS]),
    help="[default: table, or the suffix of --out]",
)
@click.option("--out", metavar="FILE", help="Write to FILE, local or s3://, instead of printing.")
@overwrite_option
@labels_options
@vocabulary_option
@click.option(
    "--thresholds",
    type=EXISTING_FILE,
    help="File of `tagstream thresholds`; adds the view confident_labels.",
)
def sql(
    store: str,
    query: str | None,
    run: str | None,
    output: str | None,
    out: str | None,
    overwrite: bool,
    labels: LabelChoice,
    vocabulary: str | None,
    thresholds: str | None,
) -> None:
    """Run a SQL QUERY (DuckDB's dialect) over STORE, local or s3://, and print the result.

    QUERY may be the name of a .sql file. Without QUERY, a prompt opens on a terminal; elsewhere standard input is read.
    Several queries, each ended by a semicolon, print one table each.

    Views: images (one row a sample), labels (one row a label), listed_labels (scores of --names of `tagstream label`),
    rejects, truth (given labels), runs, jobs, lists. --labels says which labels the view labels and the macros have.

    Macros:
    images_with('dog'), labels_of('key'), cooccurring('dog'), top_labels('run'), recall_at(10). Macros find a name in
    all its spellings. With --run all of these know one run alone; without it, all runs of the store.

    \b
    tagstream sql STORE --run latest "SELECT label, count(*) AS n FROM labels GROUP BY label ORDER BY n DESC LIMIT 10"
    tagstream sql STORE "SELECT shard, key, score FROM images_with('dog', min_score := 0.2)"
    tagstream sql STORE "SELECT * FROM labels" --out labels.parquet
    """
    output = _format(output, out, overwrite)
    if query is not None or not sys.stdin.isatty():
        query = _read_query(query)
    else:
        _check_prompt(output, out)
    file = None if out is None else find_result_file(out, store, overwrite=overwrite)
    learned = None if thresholds is None else read_thresholds(thresholds)
    run = None if run is None else find_chosen_run(store, run)
    connection = open_store(store, read_vocabulary(vocabulary), learned, run=run, labels=labels)
    if query is None:
        run_prompt(connection, store, output)
        return
    _tell_of_several_runs(connection)
    _tell_of_many_files(connection, store)
    if file is None:
        _print(connection, query, output)
    else:
        n_rows = _write(connection, query, output, file)
        click.echo(f"{n_rows:,} row{'' if n_rows == 1 else 's'} in {out}")


def _format(output: str | None, out: str | None, overwrite: bool) -> str:
    """The format of the result. Raises click.UsageError for options that contradict one another."""
    if out is None:
        if overwrite:
            raise click.UsageError("--overwrite goes with --out FILE")
        if output == "parquet" and sys.stdout.isatty():
            raise click.UsageError("--format parquet is not for a terminal; give --out FILE")
        return output or "table"
    suffix = PurePosixPath(out).suffix.lower().removeprefix(".")
    by_suffix = suffix if suffix in _FILE_FORMATS else None
    if output is None and by_suffix is None:
        raise click.UsageError(f"--out is {out}; expected a name in .parquet, .csv or .json, or --format")
    if output == "table":
        raise click.UsageError("--format table is for reading; --out writes csv, json or parquet")
    if output is not None and by_suffix not in (None, output):
        raise click.UsageError(f"--out is {out}, --format is {output}; expected the same format")
    return output or str(by_suffix)


def _read_query(query: str | None) -> str:
    """The text of the query; None reads it from standard input, the name of a .sql file from that file."""
    if query is None:
        content = sys.stdin.buffer.read()
    elif query.lower().endswith(".sql") and "\n" not in query:
        try:
            content = Path(query).read_bytes()
        except OSError as error:
            raise click.UsageError(f"the query {query} cannot be read as a file: {error.strerror}") from error
    else:
        content = query.encode("utf-8", "surrogateescape")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"the query is no UTF-8 text: {error}") from error


def _check_prompt(output: str, out: str | None) -> None:
    """Raises UsageError where there is neither a query nor a terminal for the prompt."""
    if out is not None or output == "parquet" or not sys.stdout.isatty():
        raise click.UsageError("there is no QUERY; the prompt prints to a terminal only, everything else needs one")


def _tell_of_several_runs(connection: Connection) -> None:
    """Says on stderr that a query adds up what several runs found, unless it tells them apart."""
    n_runs = len(query_rows(connection, "records", {"run": None}))
    if n_runs > 1:
        click.echo(f"the views hold {n_runs} runs; --run narrows them to one", err=True)


def _tell_of_many_files(connection: Connection, store: str) -> None:
    """Says on stderr why a query may take long, and what makes it short."""
    n_files = count_files(connection)
    if n_files > _MANY_FILES:
        hint = f"`{to_paste('compact', store)}` makes them few, and queries faster"
        click.echo(f"the labels lie in {n_files:,} files; {hint}", err=True)


def _print(connection: Connection, query: str, output: str) -> None:
    if output == "parquet":
        run_interruptibly(connection, lambda: write_parquet(stream_batches(connection, query), sys.stdout.buffer))
        return
    queries = (split_queries(connection, query) if output == "table" else []) or [query]
    for number, text in enumerate(queries):
        if number:
            click.echo()
        run_interruptibly(connection, partial(_print_query, connection, text, output))


def _print_query(connection: Connection, query: str, output: str) -> int:
    return print_result(run_query(connection, query), output)


def _write(connection: Connection, query: str, output: str, file: ResultFile) -> int:
    """Writes the result of a query to a file; returns the number of rows."""

    def write() -> int:
        with file.open() as stream:
            if output == "parquet":
                return write_parquet(stream_batches(connection, query), stream)
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            columns, rows = columns_and_rows(run_query(connection, query))
            n_rows = {"csv": write_csv, "json": write_json}[output](columns, rows, text)
            text.detach()
            return n_rows

    return run_interruptibly(connection, write)
