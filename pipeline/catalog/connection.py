"""A connection to DuckDB: the package's own queries, a user's query, tables and functions of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from model.choices import Ranking, find_ranking
from pipeline.errors import StoreError, TagstreamError
from pipeline.naming.vocabulary import Vocabulary

# DuckDB carries no type information.
Connection = Any
# EXPLAIN ANALYZE does what it explains.
_EXPLAIN = re.compile(r"\s*explain\b(\s+analyze\b)?(\s*\([^)]*\))?", re.IGNORECASE)


def hide_progress(connection: Connection) -> None:
    """Turns the progress bar off, which would be written between rows that other programs read."""
    # In a notebook without ipywidgets it is off, and to set it at all fails.
    ((is_shown,),) = connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    if is_shown:
        connection.execute("SET enable_progress_bar = false")


def run_query(connection: Connection, query: str) -> Connection:
    """Runs one reading query of a user's. Raises TagstreamError with DuckDB's message where it fails or would write."""
    check_query(connection, query)
    try:
        return connection.execute(query)
    except duckdb.Error as error:
        raise query_error(error) from error


def check_query(connection: Connection, query: str) -> None:
    """Raises TagstreamError for what is not one reading query."""
    try:
        statement = _only_statement(connection, query)
        if statement.type == duckdb.StatementType.EXPLAIN:
            statement = _only_statement(connection, _EXPLAIN.sub("", statement.query, count=1))
    except duckdb.Error as error:
        raise query_error(error) from error
    if statement.type != duckdb.StatementType.SELECT:
        raise TagstreamError(f"{statement.type.name} statements are not run: a store is only read")


def query_error(error: duckdb.Error) -> TagstreamError:
    """A failure of a query in a sentence, with the cause that is likeliest where a file is gone."""
    message = f"the query failed: {error}"
    if isinstance(error, duckdb.IOException | duckdb.HTTPException) or "FileNotFoundError" in message:
        message += "; if the store was compacted or labelled again since it was opened, open it anew"
    return TagstreamError(message)


def _only_statement(connection: Connection, query: str) -> Any:
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise TagstreamError(f"got {len(statements)} SQL statements; expected one query")
    return statements[0]


def query_rows(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one of the package's own queries (`pipeline/catalog/sql/<name>.sql`)."""
    result = connection.execute(read_sql(name), dict(parameters))
    columns = [column[0] for column in result.description or []]
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


def read_sql(name: str) -> str:
    """The text of one of the package's own queries."""
    return files("pipeline.catalog").joinpath("sql", f"{name}.sql").read_text("utf-8")


def add_table(connection: Connection, name: str, table: pa.Table) -> None:
    """Makes a table of the connection's own, in place of one of that name; the store is not touched."""
    connection.register("registered", table)
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM registered")
    connection.unregister("registered")


def add_names(connection: Connection, vocabulary: Vocabulary) -> None:
    """Makes the function `name_of(text)`: a label's name in the vocabulary, null for one that is denied."""
    # A label occurs many times: it is named once.
    name_of = cache(vocabulary.name_of)
    connection.create_function(
        "name_of",
        lambda label: None if label is None else name_of(label),
        ["VARCHAR"],
        "VARCHAR",
        null_handling="special",
    )


def add_display_names(connection: Connection, vocabulary: Vocabulary) -> None:
    """Makes the table `display_names` (name, language, display): what names are called in other languages."""
    rows = [
        (name, language, text) for language, names in vocabulary.display.items() for name, text in sorted(names.items())
    ]
    columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(3)]
    add_table(connection, "display_names", pa.table(columns, names=["name", "language", "display"]))


def run_record(connection: Connection, run: str) -> dict[str, Any]:
    """The record of the run of this name. Raises StoreError where there is none."""
    records = query_rows(connection, "records", {"run": run})
    if not records:
        raise StoreError(f"there is no run {run} in the store")
    return records[0]


def ranking_of(run: str, labelling: Mapping[str, Any]) -> Ranking:
    """What a run's labels are ranked by, from its record. Raises TagstreamError for a ranking that does not exist."""
    try:
        return find_ranking(labelling["ranking"])
    except ValueError as error:
        raise TagstreamError(f"the record of run {run} cannot be understood: {error}") from error
