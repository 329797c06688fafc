"""Around a command: `--summary`, `--notify`, and the last line of a log of JSON, however the command ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from jobs.closing.notification import Receiver, find_receiver
from jobs.closing.outcome import Outcome
from jobs.closing.summary import write_summary
from jobs.console.log import is_json, say
from jobs.console.process import exit_code_of
from pipeline.errors import TagstreamError
from schemas import ComparisonSummary, DriftSummary, JobSummary

Summary = JobSummary | ComparisonSummary | DriftSummary
Summarize = Callable[[Outcome], Summary]


@contextlib.contextmanager
def closing(summarize: Summarize, summary_url: str | None, notify: str | None) -> Iterator[Outcome]:
    """Writes a command's summary and sends it to its receiver, however the command ends.

    A summary that says `running` is written first, so that a file of an earlier command does not survive a kill. A
    summary that cannot be written fails the command. A receiver that cannot be reached is logged and fails nothing.

    Args:
        summarize: makes the summary of a command with this outcome.
        summary_url: file of the summary, a path or s3://; None writes none.
        notify: web address or command that receives the summary; None sends it to nobody.

    Yields: the outcome, in which the command sets its exit code and alarms.
    """
    outcome = Outcome()
    delivery = _Delivery(summarize, summary_url)
    try:
        delivery.start(outcome, notify)
        yield outcome
    except BaseException as failure:
        outcome.fail(failure)
        try:
            delivery.finish(outcome)
        except Exception as trouble:
            # The command ends with its own failure.
            say(str(trouble), level=logging.ERROR, prefix="Error: ")
        raise
    outcome.succeed()
    delivery.finish(outcome)


class _Delivery:
    """Takes the summary of a command to its file, its receiver and the log."""

    def __init__(self, summarize: Summarize, url: str | None) -> None:
        self._summarize = summarize
        self._url = url
        self._receiver: Receiver | None = None

    def start(self, outcome: Outcome, notify: str | None) -> None:
        """Finds the receiver and writes the first summary. Raises TagstreamError where that fails."""
        if notify is not None:
            self._receiver = find_receiver(notify)
        if self._url:
            try:
                write_summary(self._url, self._summarize(outcome))
            except TagstreamError:
                # The last summary would fail in the same way.
                self._url = None
                raise

    def finish(self, outcome: Outcome) -> None:
        """Delivers the last summary. Raises TagstreamError where it cannot be written, after all others have it."""
        summary = self._summarize(outcome)
        trouble = None
        if self._url:
            try:
                write_summary(self._url, summary)
            except TagstreamError as error:
                trouble = error
                summary = replace(summary, exit_code=exit_code_of(error), message=str(error))
        _log(summary)
        self._notify(summary)
        if trouble is not None:
            raise trouble

    def _notify(self, summary: Summary) -> None:
        if self._receiver is None:
            return
        try:
            self._receiver.notify(summary.to_json().encode())
        except TagstreamError as error:
            say(f"NOT NOTIFIED: {error}", level=logging.ERROR)


def _log(summary: Summary) -> None:
    """Writes the last line of a log of JSON; a log of text has none."""
    if is_json():
        counts = {name: getattr(summary, name) for name in ("outcome", "exit_code", "alarms")}
        say(f"{summary.verb} ended: {summary.outcome}", **counts)
