"""`tagstream status --since`: whether what was committed since a time differs from what was there before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

from jobs.closing.closing import closing
from jobs.closing.outcome import Outcome
from jobs.closing.summary import summarize_drift
from jobs.console.drift_table import DriftCondition, print_drift, tell_of_few_shards
from jobs.console.process import EXIT_CONDITION_MET
from pipeline.analysis.drift import Drift, Side, drift_since
from pipeline.catalog.views import open_store
from pipeline.errors import StoreError
from pipeline.store.run_choice import match_run
from pipeline.store.store import Store, no_store
from pipeline.text import counted
from schemas import DriftSummary

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def show_since(
    url: str, run: str | None, since: str, conditions: Sequence[str], summary: str | None, notify: str | None
) -> int:
    """Prints the tests; returns the exit code.

    Args:
        run: the run that is looked at; None takes all of the store together.
        since: a time, how long ago, or a run.
    """
    drift: Drift | None = None
    runs: list[str] = []

    def summarize(outcome: Outcome) -> DriftSummary:
        return summarize_drift(url, since, runs, drift, outcome)

    with closing(summarize, summary, notify) as outcome:
        parsed = [DriftCondition.parse(text) for text in conditions]
        store = Store(url)
        if not store.exists():
            raise no_store(url)
        names = store.run_names()
        runs = names if run is None else [match_run(store, names, run)]
        start = _find_time(store, names, since)
        drift = drift_since(open_store(url, run=None if run is None else runs[0]), store, runs, start)
        click.echo(f"Since {start.isoformat(timespec='seconds')}: {_describe(drift.since)}")
        click.echo(f"Before: {_describe(drift.before)}\n")
        print_drift(drift, ("before", "since"))
        tell_of_few_shards(drift)
        outcome.alarms = [condition.text for condition in parsed if condition.holds(drift)]
        for alarm in outcome.alarms:
            click.echo(f"The condition holds: {alarm}", err=True)
        outcome.exit_code = EXIT_CONDITION_MET if outcome.alarms else 0
    return outcome.exit_code


def _describe(side: Side) -> str:
    return f"{counted(side.n_images, 'image')} in {counted(side.n_shards, 'shard')}"


def _find_time(store: Store, names: Sequence[str], text: str) -> datetime:
    """The time that is meant; of a run the one when it was made. Raises UsageError where there is none."""
    now = datetime.now(UTC)
    try:
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
            return now - timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
        # Without a zone it is the time of this machine.
        start = datetime.fromisoformat(text).astimezone(UTC)
    # Longer than the calendar is, or no time at all.
    except (ValueError, OverflowError):
        return _made(store, names, text)
    if start > now:
        raise click.UsageError(f"--since is {text}, which is to come; expected a time that is over")
    return start


def _made(store: Store, names: Sequence[str], text: str) -> datetime:
    try:
        record = store.run(match_run(store, names, text)).read_record()
    except StoreError as error:
        raise click.UsageError(
            f"--since is {text!r}; expected a time such as 2026-12-01T06:00, 24h, 7d, or a run: {error}"
        ) from error
    if record is None:
        raise click.UsageError(f"--since is {text!r}; this run has no record")
    return datetime.fromisoformat(record.created).astimezone(UTC)
