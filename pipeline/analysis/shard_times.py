"""When the shards of a store were committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.catalog.connection import Connection, query_rows
from pipeline.errors import TagstreamError
from pipeline.store.store import Store


@dataclass(frozen=True, slots=True)
class ShardTime:
    """A shard of a run, and when it was committed, UTC."""

    run: str
    shard: str
    committed: datetime


def shard_times(connection: Connection, store: Store, runs: Sequence[str] | None = None) -> list[ShardTime]:
    """The shards that a connection shows, ordered by run and name.

    Args:
        runs: of these runs; None takes all that the connection shows.

    Raises TagstreamError where the storage does not tell when files were written.
    """
    times = []
    rows = query_rows(connection, "run_shards", {"runs": None if runs is None else list(runs)})
    committed = {run: store.run(run).committed() for run in {row["run"] for row in rows}}
    for row in rows:
        held = committed[row["run"]]
        # Without a commit, a shard was taken out since the connection was opened.
        modified = held[row["shard"]].modified if row["shard"] in held else None
        if modified is None:
            raise TagstreamError(f"{store.url} does not tell when {row['shard']} was committed; open the store anew")
        times.append(ShardTime(row["run"], row["shard"], datetime.fromtimestamp(modified, UTC)))
    return times
