"""SQL over a store: DuckDB with views of its tables."""

from __future__ import annotations

import io
import json
import re
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
from pyarrow.json import ParseOptions, ReadOptions, read_json

from pipeline.catalog.confident import create_confident_labels
from pipeline.catalog.connection import (
    Connection,
    add_display_names,
    add_names,
    add_table,
    hide_progress,
    read_sql,
)
from pipeline.catalog.label_choice import OPEN_LABELS, LabelChoice, create_lists
from pipeline.catalog.stored_files import StoredFiles
from pipeline.errors import StoreError
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.storage.files import full_url, is_local, open_filesystem, storage_errors
from pipeline.store.layout import Layout
from pipeline.store.reviews import RunReviews
from pipeline.store.run_choice import choose_run
from pipeline.store.store import Store, no_store
from pipeline.text import without_traceback
from schemas import (
    DRAWN,
    FORMER_IMAGES,
    IMAGES,
    IMAGES_OF_HASHES,
    IMAGES_OF_REUSE,
    LABELS,
    LABELS_OF_VIEWS,
    LISTED,
    REVIEWS,
    SPELLINGS,
    JobRecord,
    RunRecord,
    SampleRecord,
)

if TYPE_CHECKING:
    from pipeline.naming.thresholds import Thresholds

_WILDCARD = re.compile(r"[*?\[]")
# Columns of a file's path, as SQL. A folder `name=value` is one that only such folders part from the file.
_OF_FOLDER = r"regexp_extract(filename, '/{}=([^/]*)/(?:[^/=]+=[^/]*/)*[^/]*$', 1)"
_OF_RUN = {"run": _OF_FOLDER.format("run")}
_OF_LIST = {"list": _OF_FOLDER.format("list"), **_OF_RUN}
# When reviews were imported, UTC; null of files whose names do not say it.
_IMPORTED = r"epoch_ms(try_cast(regexp_extract(filename, '/([0-9]+)-[^/]*$', 1) AS BIGINT))"
_RECORD_TYPES = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "list[str]": pa.list_(pa.string())}


def open_store(
    url: str,
    vocabulary: Vocabulary | None = None,
    thresholds: Thresholds | None = None,
    *,
    run: str | None = None,
    labels: LabelChoice = OPEN_LABELS,
    memory_limit: str | None = None,
) -> Connection:
    """A DuckDB connection with views of the store and macros.

    The views: images, labels, listed_labels, rejects, truth, duplicates, near_duplicates, runs, jobs, lists, samples,
    drawn, reviews.

    `labels` holds what the recognizer wrote of itself, or as the choice says the scores of a list of names, or both;
    its column `kind` tells which. `listed_labels` holds the scores of every list.

    `labels` and `truth` have a column `name`, the label's name in the vocabulary (default: the one that comes along);
    `name_of(text)` gives it. `labels` also tells which names the vocabulary calls `sensitive`, and the table
    `display_names` what it calls names in other languages. The macros: `pipeline/catalog/sql/macros.sql`. With
    thresholds there are also `confident_labels`.

    With a run, every view and macro knows this run alone: `choose_run` says which one a name, its beginning or `latest`
    means. Without one they know all runs of the store.

    What needs more memory than the limit (by default 80 % of the machine's) goes to the disk, among temporary files.

    It shows what is committed now. It reads the store and nothing else of this machine. `s3://` is read through fsspec,
    DuckDB's httpfs extension is not needed. Raises StoreError where there is no store, no such run, or no such list.
    """
    store = Store(url)
    if not store.exists():
        raise no_store(url)
    runs = store.run_names() if run is None else [choose_run(store, run).run]
    connection, root = _connect(store, memory_limit), full_url(store.filesystem, store.root)
    _create_views(connection, store, runs, labels, root)
    _create_derived(connection, vocabulary or read_vocabulary(None), thresholds)
    _confine(connection, root)
    if "IPython" in sys.modules:
        from pipeline.catalog.notebook import show_in_notebook

        show_in_notebook()
    return connection


def count_files(connection: Connection) -> int:
    """How many files the labels lie in that recognizers wrote."""
    query = "SELECT coalesce(len(getvariable($view)), 0)"
    views = ("centre_labels", "view_labels")
    return sum(int(connection.execute(query, {"view": view}).fetchall()[0][0]) for view in views)


def _connect(store: Store, memory_limit: str | None) -> Connection:
    """A connection to a database in memory that shows no progress and can read the store's files."""
    connection = duckdb.connect()
    # Otherwise it would be a folder in the working directory.
    spill = Path(tempfile.gettempdir()) / f"tagstream-{uuid.uuid4().hex}"
    connection.execute(f"SET temp_directory = {_sql_string(str(spill))}")
    if memory_limit is not None:
        connection.execute(f"SET memory_limit = {_sql_string(memory_limit)}")
    hide_progress(connection)
    if not is_local(store.filesystem):
        # With its default cache the filesystem would read whole files for the sake of one column.
        filesystem, _ = open_filesystem(store.url, default_cache_type="none")
        connection.register_filesystem(filesystem)
    return connection


def _create_views(connection: Connection, store: Store, runs: Sequence[str], labels: LabelChoice, root: str) -> None:
    """Tables of the store's records and views of its files.

    Args:
        root: of the store, as DuckDB reads it.

    Raises StoreError where they cannot be read, or there is no such list.
    """
    samples = [sample for run in runs for sample in RunReviews(store.run(run)).samples()]
    records = {run: record for run in runs if (record := store.run(run).read_record()) is not None}
    _create_records(connection, store, records, samples)
    chosen = create_lists(connection, store, runs, labels)
    try:
        with storage_errors(f"read the store {store.url}"):
            files = StoredFiles.of(store, runs, records, Layout(_as_pattern(root)))
            _create_file_views(connection, files, chosen, shows_open=labels.shows_open)
            _create_review_views(connection, store, runs, samples, root)
    except duckdb.Error as error:
        reason = without_traceback(str(error)).strip().splitlines()[0]
        raise StoreError(f"the store {store.url} cannot be read: {reason}") from error
    connection.execute(read_sql(f"{labels.kinds}_labels"))


def _create_derived(connection: Connection, vocabulary: Vocabulary, thresholds: Thresholds | None) -> None:
    """What is made of the files' views: names, rejects, truth, macros, labels above their thresholds."""
    add_names(connection, vocabulary)
    connection.execute(f"SET VARIABLE vocabulary = {_sql_string(vocabulary.version)}")
    connection.execute("SET VARIABLE sensitive_names = $names", {"names": sorted(vocabulary.sensitive)})
    add_display_names(connection, vocabulary)
    connection.execute(read_sql("derived"))
    connection.execute(read_sql("macros"))
    if thresholds is not None:
        create_confident_labels(connection, thresholds, vocabulary)


def _confine(connection: Connection, root: str) -> None:
    """From here on the user's SQL sees this store and no other file, and a mistyped table name no Python variable."""
    connection.execute("SET python_enable_replacements = false")
    # The views' patterns are held against this list before they are expanded.
    allowed = ", ".join(_sql_string(folder + "/") for folder in (root, _as_pattern(root)))
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _create_file_views(
    connection: Connection, files: StoredFiles, chosen: Mapping[str, str], *, shows_open: bool
) -> None:
    """Views of the files that own shards.

    Args:
        chosen: of each run the list whose labels are shown, if any.
        shows_open: whether labels that the recognizer wrote of itself are shown.
    """
    if files.superseded:
        add_table(connection, "superseded", pa.Table.from_pylist(files.superseded))
    for view, paths, schema in (
        ("todays_images", files.images(IMAGES), IMAGES),
        ("former_images", files.images(FORMER_IMAGES), FORMER_IMAGES),
        ("reusing_images", files.images(IMAGES_OF_REUSE), IMAGES_OF_REUSE),
        ("hashed_images", files.images(IMAGES_OF_HASHES), IMAGES_OF_HASHES),
        ("centre_labels", files.labels(of_views=False), LABELS),
        ("view_labels", files.labels(of_views=True), LABELS_OF_VIEWS),
        ("stored_spellings", files.spellings() if shows_open else [], SPELLINGS),
        ("unnamed_centre_labels", files.labels(of_views=False, only_unnamed=True) if shows_open else [], LABELS),
        ("unnamed_view_labels", files.labels(of_views=True, only_unnamed=True) if shows_open else [], LABELS_OF_VIEWS),
        ("listed_labels", files.listed_labels(), LISTED),
        ("chosen_listed_labels", files.listed_labels(chosen), LISTED),
    ):
        columns = _OF_LIST if schema is LISTED else _OF_RUN
        _create_file_view(connection, view, paths, schema, columns, superseded=bool(files.superseded))
    connection.execute(read_sql("images"))
    connection.execute(read_sql("written_labels"))


def _create_review_views(
    connection: Connection, store: Store, runs: Sequence[str], samples: Sequence[SampleRecord], root: str
) -> None:
    """Views of the images that were drawn for review, and of what people say of them."""
    layout = Layout(_as_pattern(root))
    held = [one for one in samples if store.filesystem.exists(store.run(one.run).layout.drawn(one.sample))]
    drawn = [layout.run(sample.run).drawn(sample.sample) for sample in held]
    reviews = [layout.run(run).reviews_file(name) for run in runs for name in RunReviews(store.run(run)).review_files()]
    _create_file_view(connection, "drawn", drawn, DRAWN, _OF_RUN, superseded=False)
    schema = REVIEWS.append(pa.field("imported", pa.timestamp("us")))
    columns = {**_OF_RUN, "imported": _IMPORTED}
    _create_file_view(connection, "stored_reviews", reviews, schema, columns, superseded=False)


def _create_file_view(
    connection: Connection,
    view: str,
    paths: Sequence[str],
    schema: pa.Schema,
    columns: Mapping[str, str],
    *,
    superseded: bool,
) -> None:
    """One view of files, or an empty table where there are none.

    Args:
        columns: those that stand in the files' paths, as SQL over `filename`. They are text where the schema has none.
        superseded: whether files hold rows that others own.
    """
    if not paths:
        told = [pa.field(name, pa.string()) for name in columns if name not in schema.names]
        add_table(connection, view, _empty_table(pa.schema([*schema, *told])))
        return
    connection.execute(
        f"SET VARIABLE {view} = (SELECT list(path) FROM (SELECT unnest($paths) AS path))", {"paths": list(paths)}
    )
    has_shards = "shard" in schema.names
    text = read_sql("file_view_without_superseded" if superseded and has_shards else "file_view")
    of_path = ", ".join(f"{told} AS {name}" for name, told in columns.items())
    connection.execute(Template(text).substitute(view=view, columns=of_path))


def _create_records(
    connection: Connection, store: Store, runs: Mapping[str, RunRecord], samples: Sequence[SampleRecord]
) -> None:
    """Tables of the json records; their nested objects are structs."""
    jobs = [job for record in runs.values() for job in store.run(record.run).read_jobs()]
    tables = (("runs", RunRecord, list(runs.values())), ("jobs", JobRecord, jobs), ("samples", SampleRecord, samples))
    for name, kind, records in tables:
        types = {field.name: _RECORD_TYPES.get(str(field.type)) for field in fields(kind)}
        if records:
            lines = "\n".join(json.dumps(asdict(record)) for record in records).encode()
            plain = pa.schema([(field, kind) for field, kind in types.items() if kind is not None])
            # Not from_pylist, for which pyarrow imports pandas.
            table = read_json(io.BytesIO(lines), ReadOptions(block_size=len(lines) + 1), ParseOptions(plain))
        else:
            # Without records nested objects have no fields, which a struct cannot be without.
            table = _empty_table(pa.schema([(field, kind or pa.string()) for field, kind in types.items()]))
        add_table(connection, name, table)


def _empty_table(schema: pa.Schema) -> pa.Table:
    """Not the schema's own, for which pyarrow imports pandas: a second before the first query."""
    return pa.Table.from_batches([], schema)


def _as_pattern(path: str) -> str:
    """A pattern that matches this path alone."""
    return _WILDCARD.sub(r"[\g<0>]", path)


def _sql_string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
