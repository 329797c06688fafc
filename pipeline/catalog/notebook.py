"""What a notebook shows of a store: relations as frames, connections as the tables that they have.

DuckDB's own classes cannot be given a `_repr_html_`: IPython is told how to show them, where it runs.
"""

from __future__ import annotations

import sys
from typing import Any

import duckdb

from pipeline.catalog.connection import Connection, read_sql

_MAX_ROWS = 20
_MAX_CHARACTERS = 250
_RECORDS = {"runs", "jobs", "lists"}
# What people ask; the other views are what these are made of.
_VIEWS = {"images", "labels", "listed_labels", "confident_labels", "spellings", "truth", "rejects"}


def show_in_notebook() -> None:
    """Tells IPython, where it runs in this process, how to show DuckDB's relations and connections."""
    # Not imported: it takes half a second, and where it was not loaded nothing shows HTML.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type(duckdb.DuckDBPyRelation, relation_html)
    formatter.for_type(duckdb.DuckDBPyConnection, connection_html)


def relation_html(relation: Any) -> str:
    """The first rows of a relation as a frame, and whether there are more.

    All rows are not counted: that may take as long as reading them.
    """
    frame = relation.limit(_MAX_ROWS + 1).df()
    n_rows = len(frame)
    if n_rows > _MAX_ROWS:
        note = f"the first {_MAX_ROWS} rows; there are more, <code>.df()</code> gives all"
    else:
        note = f"{n_rows} row{'' if n_rows == 1 else 's'}"
    return f"{_frame_html(frame.head(_MAX_ROWS))}<p>{note}</p>"


def connection_html(connection: Connection) -> str:
    """The runs, where it is a store's, and the tables and views with their columns."""
    # Another cursor: the connection may still hold the rows of a query.
    cursor = connection.cursor()
    tables = cursor.execute(read_sql("described_tables")).df()
    try:
        runs = cursor.execute(read_sql("records"), {"run": None}).df()
    except duckdb.Error:
        # Another database than a store's, perhaps with tables of these names.
        return _frame_html(tables)
    return _frame_html(runs) + _frame_html(tables[tables["table"].isin(_VIEWS | _RECORDS)])


def _frame_html(frame: Any) -> str:
    """As pandas shows frames in notebooks: values escaped, long ones cut."""
    import pandas

    with pandas.option_context("display.max_colwidth", _MAX_CHARACTERS):
        html: str = frame.to_html(index=False, border=0, notebook=True)
    return html
