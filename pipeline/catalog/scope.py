"""A connection narrowed to one run, and those of its images that meet a user's condition."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

import duckdb

from pipeline.catalog.connection import Connection, read_sql
from pipeline.errors import TagstreamError
from schemas import LABELLED


def narrow_to_run(connection: Connection, run: str, *, confident: bool = False) -> None:
    """Makes the connection's views `images`, `labels` and `truth` those of one run.

    Args:
        confident: the labels are those that reach the thresholds that the store was opened with.
    """
    connection.execute("SET VARIABLE scope_run = (SELECT $run)", {"run": run})
    labels = "confident_labels" if confident else "labels"
    connection.execute(Template(read_sql("run_scope")).substitute(labels=labels))


def choose_images(connection: Connection, condition: str | None, statuses: Sequence[str] = (LABELLED,)) -> int:
    """Makes the table `chosen` (image_id) of the images that meet a condition; returns their number.

    Args:
        condition: one expression over the columns of `images`; None takes all.

    Raises TagstreamError for a condition that is none, or fails.
    """
    _choose(connection, "", condition, statuses)
    return n_chosen(connection)


def check_condition(connection: Connection, condition: str) -> None:
    """Raises what `choose_images` would of the condition's text, without reading a row."""
    _choose(connection, "EXPLAIN ", condition, [LABELLED])


def _choose(connection: Connection, verb: str, condition: str | None, statuses: Sequence[str]) -> None:
    text = Template(read_sql("chosen")).substitute(
        condition="true" if condition is None else _checked(condition),
        statuses=", ".join(f"'{status}'" for status in statuses),
    )
    try:
        connection.execute(verb + text)
    except duckdb.Error as error:
        raise TagstreamError(f"the condition {condition!r} failed: {_reason(error)}") from error


def n_chosen(connection: Connection) -> int:
    """How many images the table `chosen` holds."""
    (n_images,) = connection.execute("SELECT count(*) FROM chosen").fetchone()
    return int(n_images)


def _checked(condition: str) -> str:
    """The condition, which is known to be one expression and nothing else.

    It has to be one both by itself and in parentheses: what closes the parentheses that it is put into has one too
    many by itself, and what ends an expression (a semicolon, ORDER BY, a second expression) does not go in parentheses.
    """
    try:
        duckdb.SQLExpression(condition)
        duckdb.SQLExpression(f"(\n{condition}\n)")
    except duckdb.Error as error:
        raise TagstreamError(
            f"{condition!r} is no condition: {_reason(error)}; expected one SQL expression, as caption LIKE '%dog%'"
        ) from error
    return condition


def _reason(error: duckdb.Error) -> str:
    """DuckDB's message in one line, without the query's text, which the user did not write.

    It may quote values of the store, which must not steer a terminal.
    """
    message = str(error).split("\nLINE ", 1)[0]
    return " ".join("".join(character if character.isprintable() else " " for character in message).split())
