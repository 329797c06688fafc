"""Which run of a store is meant: by its name, by the beginning of its name, as the latest, or by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import StoreError
from pipeline.store.run import Run
from pipeline.store.store import LATEST, Store, no_store
from schemas import RunRecord

_N_NAMED = 10


@dataclass(frozen=True, slots=True)
class RunChoice:
    """The run that is meant, and how it was found."""

    record: RunRecord
    n_runs: int
    """How many runs the store holds."""
    by: Literal["name", "latest", "default"]
    """`name`: the name or its beginning was given. `latest`: the latest run was asked for. `default`: nothing was
    given."""

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.record.run

    @property
    def note(self) -> str | None:
        """A line that says which run was taken; None where the user named it, or the store holds no other."""
        if self.by == "name" or self.n_runs == 1:
            return None
        chosen = f"run {self.run}, the latest of {self.n_runs}"
        return chosen if self.by == "latest" else f"{chosen}; --run chooses"


def choose_run(store: Store, given: str | None) -> RunChoice:
    """The run that is meant where a run is only read.

    Args:
        given: the name of a run, the beginning of one run's name alone, or `latest`; None takes the latest.

    The latest run is the one whose last job that labelled anything began last.

    Raises StoreError where there is no store, no such run, or several runs whose names begin like this.
    """
    names = _run_names(store)
    if given in names or given not in (None, LATEST):
        return RunChoice(_record(store, _match(store, names, str(given))), len(names), "name")
    return RunChoice(_latest(store, names), len(names), "default" if given is None else "latest")


def choose_run_to_change(store: Store, given: str | None) -> RunChoice:
    """The run that is meant where rows of a run are replaced: of several runs one has to be chosen.

    To change another run than the one that was meant costs more than to read another one. Arguments and errors are
    those of `choose_run`; it also raises StoreError where nothing is given and the store holds several runs.
    """
    names = _run_names(store)
    if given is None and len(names) > 1:
        raise StoreError(f"the store holds {len(names)} runs ({_listed(names)}); choose one with --run")
    return choose_run(store, given)


def match_run(store: Store, names: Sequence[str], given: str) -> str:
    """The one of these runs that a name, the beginning of a name or `latest` means. Raises StoreError as `choose_run`.

    For runs whose record may be lost.
    """
    if given == LATEST and given not in names:
        return choose_run(store, given).run
    return _match(store, names, given)


def _run_names(store: Store) -> list[str]:
    names = store.run_names()
    if not names:
        raise no_store(store.url)
    return names


def _match(store: Store, names: Sequence[str], given: str) -> str:
    if given in names:
        return given
    matches = [name for name in names if given and name.startswith(given)]
    if len(matches) > 1:
        raise StoreError(f"{len(matches)} runs of the store {store.url} begin with {given} ({_listed(matches)})")
    if not matches:
        held = f"it holds {_listed(names)}" if names else "it holds none"
        raise StoreError(f"there is no run {given} in the store {store.url}; {held}")
    return matches[0]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more


def _record(store: Store, name: str) -> RunRecord:
    record = store.run(name).read_record()
    if record is None:
        raise StoreError(f"there is no run {name} in the store {store.url}: its record is lost")
    return record


def _latest(store: Store, names: Sequence[str]) -> RunRecord:
    """The latest run that labelled anything; where none did, the latest of all."""
    if len(names) == 1:
        return _record(store, names[0])
    records = [record for name in names if (record := store.run(name).read_record()) is not None]
    if not records:
        raise StoreError(f"the store {store.url} holds no run whose record can be read")
    return max(records, key=lambda record: (*_last_labelled(store.run(record.run), record.created), record.run))


def _last_labelled(run: Run, created: str) -> tuple[bool, str]:
    """Whether a run labelled anything, and when the last job began that did (UTC, ISO 8601)."""
    jobs = run.read_jobs()
    labelled = [job.started for job in jobs if job.n_labelled]
    if labelled:
        return True, labelled[-1]
    # A job that was killed says nothing of what it labelled.
    return run.has_labelled(), jobs[-1].started if jobs else created
