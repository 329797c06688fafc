"""A connection narrowed to one run, and those of its images that meet a user's condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

import duckdb

from pipeline.catalog.connection import Connection, query_rows, read_sql
from pipeline.errors import TagstreamError
from pipeline.text import printable
from schemas import LABELLED


@dataclass(frozen=True, slots=True)
class RunScope:
    """A connection whose views `images`, `labels` and `truth` are those of one run; `narrow_to_run` makes it."""

    connection: Connection
    run: str

    def choose(self, condition: str | None, statuses: Sequence[str] = (LABELLED,)) -> ChosenImages:
        """The run's images that meet a condition. Raises TagstreamError for a condition that is none, or fails.

        Args:
            condition: one expression over the columns of `images`; None takes all.
        """
        _choose(self.connection, "", condition, statuses)
        return _chosen(self)


@dataclass(frozen=True, slots=True)
class ChosenImages:
    """Images of a run, as the table `chosen` (image_id). The next choice takes over the table."""

    scope: RunScope
    n_images: int

    def narrow(self, query: str, parameters: Mapping[str, Any]) -> ChosenImages:
        """Those of them that one of the package's queries keeps in the table."""
        self.scope.connection.execute(read_sql(query), dict(parameters))
        return _chosen(self.scope)

    def rows(self, query: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of one of the package's queries about them."""
        return query_rows(self.scope.connection, query, parameters)


def narrow_to_run(connection: Connection, run: str, *, confident: bool = False) -> RunScope:
    """Makes the connection's views `images`, `labels` and `truth` those of one run, for as long as it lives.

    Args:
        confident: the labels are those that reach the thresholds that the store was opened with.
    """
    connection.execute("SET VARIABLE scope_run = (SELECT $run)", {"run": run})
    labels = "confident_labels" if confident else "labels"
    connection.execute(Template(read_sql("run_scope")).substitute(labels=labels))
    return RunScope(connection, run)


def check_condition(connection: Connection, condition: str) -> None:
    """Raises what `RunScope.choose` would of the condition's text, without reading a row."""
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


def _chosen(scope: RunScope) -> ChosenImages:
    (n_images,) = scope.connection.execute("SELECT count(*) FROM chosen").fetchone()
    return ChosenImages(scope, int(n_images))


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
    return " ".join(printable(message).split())
