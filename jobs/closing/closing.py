"""What a command leaves for machines that look after it: `--summary`, `--notify`, and a last line of the log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from jobs.closing.ending import Ending, summarize_job, write_summary
from jobs.closing.notification import find_receiver
from jobs.console.log import is_json, say
from jobs.console.process import exit_code_of
from pipeline.errors import RunLockedError, TagstreamError
from pipeline.text import one_line
from schemas import ComparisonSummary, JobSummary

if TYPE_CHECKING:
    from pipeline.labelling.job import LabelJob

    Summarize = Callable[[Ending], JobSummary | ComparisonSummary]


@dataclass(slots=True)
class JobInHand:
    """A labelling job and what is known of it before it can be made."""

    verb: str
    source: str
    store: str
    job: LabelJob | None = None

    def summarize(self, ending: Ending) -> JobSummary:
        return summarize_job(self.verb, self.source, self.store, self.job, ending)


@contextlib.contextmanager
def closing(summarize: Summarize, summary: str | None, notify: str | None) -> Iterator[Ending]:
    """Writes the summary and notifies, however the command ends.

    The file says `running` meanwhile, so that after a kill it does not tell of a former time. That a summary cannot be
    written fails the command; that nobody could be notified is told, and fails nothing.

    Args:
        summarize: the summary of a command that ended so.
        summary: where it goes.
        notify: who gets it.

    Yields: the ending, for what the command knows of it: exit code and alarms.
    """
    ending = Ending()
    receiver = None
    failure: BaseException | None = None
    try:
        receiver = find_receiver(notify) if notify is not None else None
        if summary:
            try:
                write_summary(summary, summarize(ending))
            except TagstreamError:
                # Nor could it be in the end.
                summary = None
                raise
        yield ending
    except BaseException as error:
        failure = error
        raise
    finally:
        _end(ending, failure)
        try:
            _close(summarize(ending), summary, receiver)
        except Exception as trouble:
            if failure is None:
                raise
            say(str(trouble), level=logging.ERROR, prefix="Error: ")


def _end(ending: Ending, failure: BaseException | None) -> None:
    if failure is None:
        ending.outcome, ending.exit_code = "done", ending.exit_code or 0
        return
    ending.exit_code = exit_code_of(failure)
    if isinstance(failure, KeyboardInterrupt | click.Abort):
        ending.outcome = "interrupted"
    else:
        ending.outcome = "locked" if isinstance(failure, RunLockedError) else "failed"
        ending.message = failure.format_message() if isinstance(failure, click.ClickException) else one_line(failure)


def _close(result: JobSummary | ComparisonSummary, summary: str | None, receiver: Any) -> None:
    trouble = None
    if summary:
        try:
            write_summary(summary, result)
        except TagstreamError as error:
            trouble = error
            result = replace(result, exit_code=exit_code_of(error), message=str(error))
    if is_json():
        counts = {name: getattr(result, name) for name in ("outcome", "exit_code", "alarms")}
        say(f"{result.verb} ended: {result.outcome}", **counts)
    if receiver is not None:
        try:
            receiver.notify(result.to_json().encode())
        except TagstreamError as error:
            say(f"NOT NOTIFIED: {error}", level=logging.ERROR)
    if trouble is not None:
        raise trouble
