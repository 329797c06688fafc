"""SQL over a store: DuckDB with views of its tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.analysis.vocabulary import Vocabulary, read_vocabulary
from pipeline.errors import StoreError, TagstreamError
from pipeline.storage import full_url, is_local, open_filesystem, storage_errors
from pipeline.store import Store
from schemas import IMAGES, LABELS, JobRecord, RunRecord

# DuckDB carries no type information.
Connection = Any
# EXPLAIN ANALYZE does what it explains.
_EXPLAIN = re.compile(r"\s*explain\b(\s+analyze\b)?(\s*\([^)]*\))?", re.IGNORECASE)
_WILDCARD = re.compile(r"[*?\[]")
_RECORD_TYPES = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}


def open_store(url: str, vocabulary: Vocabulary | None = None) -> Connection:
    """A DuckDB connection with views of the store: images, labels, rejects, truth, runs, jobs; and macros.

    `labels` and `truth` have a column `name`, the label's name in the vocabulary (default: the one that comes along);
    `name_of(text)` gives it. The macros: `pipeline/sql/macros.sql`.

    It reads the store and nothing else of this machine. `s3://` stores are read through fsspec, DuckDB's httpfs
    extension is not needed. Raises StoreError where there is no store.
    """
    store = Store(url)
    if not store.exists():
        raise StoreError(f"there is no store at {url}; `tagstream label SOURCE --store {url}` makes one")
    connection = duckdb.connect()
    root = full_url(store.filesystem, store.root)
    if not is_local(store.filesystem):
        # With its default cache the filesystem would read whole files for the sake of one column.
        filesystem, _ = open_filesystem(url, default_cache_type="none")
        connection.register_filesystem(filesystem)
    _create_records(connection, store)
    try:
        with storage_errors(f"read the store {url}"):
            _create_tables(connection, store, root)
    except duckdb.Error as error:
        raise StoreError(f"the store {url} cannot be read: {_first_line(error)}") from error
    add_names(connection, vocabulary or read_vocabulary(None))
    connection.execute(read_sql("derived"))
    connection.execute(read_sql("macros"))
    # The user's SQL sees this store and no other file; a mistyped table name must not find a Python variable.
    connection.execute("SET python_enable_replacements = false")
    # The views' patterns are held against this list before they are expanded.
    allowed = ", ".join(_sql_string(folder + "/") for folder in (root, _as_pattern(root)))
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def run_query(connection: Connection, query: str) -> Connection:
    """Runs one reading query of a user's. Raises TagstreamError with DuckDB's message where it fails or would write."""
    try:
        statement = _only_statement(connection, query)
        if statement.type == duckdb.StatementType.EXPLAIN:
            statement = _only_statement(connection, _EXPLAIN.sub("", statement.query, count=1))
        if statement.type != duckdb.StatementType.SELECT:
            raise TagstreamError(f"{statement.type.name} statements are not run: a store is only read")
        return connection.execute(query)
    except duckdb.Error as error:
        raise TagstreamError(f"the query failed: {error}") from error


def _only_statement(connection: Connection, query: str) -> Any:
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise TagstreamError(f"got {len(statements)} SQL statements; expected one query")
    return statements[0]


def query_rows(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one of the package's own queries (`pipeline/sql/<name>.sql`)."""
    result = connection.execute(read_sql(name), dict(parameters))
    columns = [column[0] for column in result.description or []]
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


def read_sql(name: str) -> str:
    """The text of one of the package's own queries."""
    return files("pipeline").joinpath("sql", f"{name}.sql").read_text("utf-8")


def add_table(connection: Connection, name: str, table: pa.Table) -> None:
    """Makes a table of the connection's own, in place of one of that name; the store is not touched."""
    connection.register("registered", table)
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM registered")
    connection.unregister("registered")


def add_names(connection: Connection, vocabulary: Vocabulary) -> None:
    """Makes the function `name_of(text)`: a label's name in the vocabulary, null for one that is denied."""
    name_of = cache(vocabulary.name_of)

    def names_of(labels: pa.ChunkedArray) -> pa.Array:
        # A label occurs many times: it is named once.
        encoded = labels.combine_chunks().dictionary_encode()
        names = pa.array([name_of(label) for label in encoded.dictionary.to_pylist()], pa.string())
        return names.take(encoded.indices)

    connection.create_function("name_of", names_of, ["VARCHAR"], "VARCHAR", type="arrow", null_handling="special")


def _create_tables(connection: Connection, store: Store, root: str) -> None:
    if any(store.committed(run) for run in store.run_names()):
        globs = {name: _sql_string(f"{_as_pattern(root)}/{name}/run=*/*.parquet") for name in ("images", "labels")}
        connection.execute(Template(read_sql("views")).substitute(globs))
        return
    # Nothing is committed yet: tables of the right columns and no rows, so that queries work.
    for name, schema in {"images": IMAGES, "stored_labels": LABELS}.items():
        add_table(connection, name, schema.append(pa.field("run", pa.string())).empty_table())


def _create_records(connection: Connection, store: Store) -> None:
    """Tables of the json records; their nested objects are structs."""
    runs = [record for run in store.run_names() if (record := store.read_run(run)) is not None]
    jobs = [job for run in runs for job in store.read_jobs(run.run)]
    for name, kind, records in (("runs", RunRecord, runs), ("jobs", JobRecord, jobs)):
        if records:
            table = pa.Table.from_pylist([asdict(record) for record in records])
        else:
            # Without records nested objects have no fields, which a struct cannot be without.
            columns = [(field.name, _RECORD_TYPES.get(str(field.type), pa.string())) for field in fields(kind)]
            table = pa.schema(columns).empty_table()
        add_table(connection, name, table)


def _as_pattern(path: str) -> str:
    """A pattern that matches this path alone."""
    return _WILDCARD.sub(r"[\g<0>]", path)


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]


def _sql_string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
