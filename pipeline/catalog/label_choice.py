"""Which labels a connection shows: what a recognizer wrote of itself (open), names of a list (listed), or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

from model.choices import RANKINGS, Ranking
from pipeline.catalog.connection import Connection, add_table, query_rows, ranking_of
from pipeline.errors import StoreError, TagstreamError
from pipeline.store.lists import ListedFiles, RunLists
from pipeline.store.ownership import CommittedShards
from pipeline.store.run import Run
from pipeline.store.store import Store
from schemas import ListRecord

Kinds = Literal["open", "listed", "both"]
KINDS: tuple[str, ...] = get_args(Kinds)
# Names of a list are ranked by their probability, whatever the run's ranking is.
LISTED_RANKING = "prob"
_LISTS = pa.schema(
    [
        ("run", pa.string()),
        ("list", pa.string()),
        ("created", pa.string()),
        ("top", pa.int64()),
        ("min_score", pa.float64()),
        ("names", pa.list_(pa.string())),
    ]
)
_CHOSEN = pa.schema([("run", pa.string()), ("list", pa.string())])


@dataclass(frozen=True, slots=True)
class LabelChoice:
    """The labels that a connection shows."""

    kinds: Kinds = "open"
    list: str | None = None
    """Version of the list, or its beginning; None takes the latest list of each run."""

    def __post_init__(self) -> None:
        if self.list is not None and self.kinds == "open":
            raise TagstreamError(f"the list {self.list} is chosen, but open labels are shown; add --labels listed")

    @property
    def shows_open(self) -> bool:
        return self.kinds != "listed"

    @property
    def shows_listed(self) -> bool:
        return self.kinds != "open"


OPEN_LABELS = LabelChoice()


def create_lists(connection: Connection, store: Store, runs: Sequence[str], choice: LabelChoice) -> dict[str, str]:
    """Makes the tables `lists`, of all lists, and `chosen_lists`, of those whose labels are shown.

    Returns: the version of the list that is shown of each run that has one; nothing where open labels are shown.

    Raises StoreError where no run has such a list, and where a run's labels cannot stand in one order with listed ones.
    """
    records = {run: RunLists(store.run(run)).records() for run in runs}
    rows = [_row(record) for of_run in records.values() for record in of_run]
    add_table(connection, "lists", _table(rows, _LISTS))
    chosen = {run: version for run in runs if (version := _choose(run, records[run], choice)) is not None}
    if choice.shows_listed and not chosen:
        raise _no_list(store.url, runs, [record.version for of_run in records.values() for record in of_run], choice)
    shown = [{"run": run, "list": version} for run, version in chosen.items()]
    add_table(connection, "chosen_lists", _table(shown, _CHOSEN))
    if choice.kinds == "both":
        for record in query_rows(connection, "records", {"run": None}):
            if record["run"] in chosen and record["labelling"]["ranking"] != LISTED_RANKING:
                raise StoreError(
                    f"run {record['run']} is ranked by {record['labelling']['ranking']}, whose scores cannot stand in "
                    "one order with the probabilities of listed names; use --labels open, or --labels listed"
                )
    connection.execute(f"SET VARIABLE label_kinds = '{choice.kinds}'")
    return chosen


def label_kinds(connection: Connection) -> str:
    """The kinds of labels that a connection shows: open, listed or both."""
    ((kinds,),) = connection.execute("SELECT getvariable('label_kinds')").fetchall()
    return str(kinds)


def shown_ranking(connection: Connection, run: str, labelling: Mapping[str, Any]) -> Ranking:
    """What those labels of a run are ranked by that a connection shows.

    Args:
        labelling: of the run's record.

    Raises TagstreamError where listed labels are shown and the run has none.
    """
    if label_kinds(connection) == "open":
        return ranking_of(run, labelling)
    if run not in {row["run"] for row in query_rows(connection, "chosen_lists", {})}:
        raise TagstreamError(
            f"run {run} has no such list of names; `tagstream label ... --names FILE` scores one, --labels open shows "
            "what the recognizer wrote of itself"
        )
    return RANKINGS[LISTED_RANKING]


def labels_each(connection: Connection, run: str, labelling: Mapping[str, Any]) -> int:
    """How many labels an image of a run has at most, of those that a connection shows.

    Args:
        labelling: of the run's record.
    """
    kinds, n_open = label_kinds(connection), int(labelling["top_k"])
    if kinds == "open":
        return n_open
    (n_listed,) = (row["n_kept"] for row in query_rows(connection, "chosen_lists", {}) if row["run"] == run)
    return int(n_listed) if kinds == "listed" else n_open + int(n_listed)


def listed_files(run: Run, committed: CommittedShards) -> list[ListedFiles]:
    """The files of every list of a run. Raises StoreError where one does not say what it holds."""
    lists = RunLists(run)
    found = [lists.files(version, committed) for version in lists.versions()]
    for files in found:
        if files.unreadable:
            path = run.layout.listed(files.version, files.unreadable[0])
            raise StoreError(f"{path} does not say which shards it holds; `tagstream status --repair` takes it out")
    return found


def _choose(run: str, records: Sequence[ListRecord], choice: LabelChoice) -> str | None:
    if not choice.shows_listed:
        return None
    given = choice.list
    versions = [record.version for record in records]
    if given is None or given in versions:
        return given or (versions[-1] if versions else None)
    matches = [version for version in versions if version.startswith(given)]
    if len(matches) > 1:
        raise StoreError(f"{len(matches)} lists of run {run} begin with {given} ({', '.join(matches)})")
    return matches[0] if matches else None


def _no_list(url: str, runs: Sequence[str], held: Sequence[str], choice: LabelChoice) -> StoreError:
    which = f"run {runs[0]} in {url}" if len(runs) == 1 else f"the store {url}"
    if choice.list is not None and held:
        return StoreError(f"there is no list {choice.list} in {which}; it holds {', '.join(sorted(set(held)))}")
    return StoreError(f"{which} has no list of names; `tagstream label SOURCE --names FILE` scores one")


def _row(record: ListRecord) -> dict[str, Any]:
    return {
        "run": record.run,
        "list": record.version,
        "created": record.created,
        "top": record.top,
        "min_score": record.min_score,
        "names": list(record.names),
    }


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    # Not from_pylist, for which pyarrow imports pandas.
    columns = [pa.array([row[name] for row in rows], schema.field(name).type) for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)
