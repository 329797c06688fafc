"""Names of a store that no vocabulary mentions yet: what a person who keeps a vocabulary looks through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.analysis.shard_times import shard_times
from pipeline.catalog.connection import Connection, add_table, query_rows
from pipeline.naming.vocabulary import Vocabulary
from pipeline.sources.originals import original_address
from pipeline.store.store import Store

_N_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class NewName:
    """A name that no vocabulary mentions."""

    name: str
    images: int
    """How many images have it."""
    since: datetime
    """When the first of them was committed, UTC."""
    score_min: float
    score_25: float
    """A quarter of its scores are lower."""
    score_50: float
    score_75: float
    score_max: float
    examples: list[str]
    """Addresses of up to three images that have it at the highest rank."""


def find_new_names(connection: Connection, store: Store, vocabularies: Sequence[Vocabulary]) -> list[NewName]:
    """The names that none of the vocabularies mentions, those of the most images first.

    Args:
        connection: to the store, with the first of the vocabularies without its limit (`without_limit`), so that names
            which it does not allow are seen.
    """
    found = connection.execute("SELECT DISTINCT name FROM spellings WHERE name IS NOT NULL").fetchall()
    unmentioned = [name for (name,) in found if not any(words.mentions(name) for words in vocabularies)]
    add_table(connection, "unmentioned_names", pa.table({"name": pa.array(unmentioned, pa.string())}))
    times = shard_times(connection, store)
    columns = {name: [getattr(time, name) for time in times] for name in ("run", "shard")}
    # Without their zone: DuckDB would hand them back by way of pytz.
    committed = pa.array([time.committed.replace(tzinfo=None) for time in times], pa.timestamp("us"))
    add_table(connection, "shard_times", pa.table({**columns, "committed": committed}))
    rows = query_rows(connection, "new_names", {"n": _N_EXAMPLES})
    addresses = _addresses(connection, store, [place for row in rows for place in row["places"]])
    names = []
    for row in rows:
        examples = [addresses[_place(place)] for place in row.pop("places")]
        names.append(NewName(**{**row, "since": row["since"].replace(tzinfo=UTC)}, examples=examples))
    return names


def _addresses(
    connection: Connection, store: Store, places: Sequence[dict[str, Any]]
) -> dict[tuple[str, str, int], str]:
    """Where the images at these places lie."""
    types = {"run": pa.string(), "shard": pa.string(), "index": pa.int32()}
    columns = {name: pa.array([place[name] for place in places], kind) for name, kind in types.items()}
    add_table(connection, "asked_images", pa.table(columns))
    records = {run: store.run(run).read_record() for run in {place["run"] for place in places}}
    addresses = {}
    for row in query_rows(connection, "image_keys", {}):
        record = records[row["run"]]
        if record is not None:
            addresses[_place(row)] = original_address(record, row)
    return addresses


def _place(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["run"], row["shard"], row["index"]
