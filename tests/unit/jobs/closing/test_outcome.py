"""How a command ended."""

from __future__ import annotations

import click
import pytest

from jobs.closing.outcome import Outcome
from jobs.console.process import Terminated
from pipeline.errors import RunLockedError, TagstreamError


def test_a_command_that_goes_through_is_done_with_exit_code_0() -> None:
    outcome = Outcome()
    outcome.succeed()
    assert outcome == Outcome("done", 0)


def test_the_exit_code_that_a_command_chose_stays() -> None:
    outcome = Outcome(exit_code=4, alarms=["hit > 0"])
    outcome.succeed()
    assert outcome == Outcome("done", 4, alarms=["hit > 0"])


@pytest.mark.parametrize(
    ("failure", "state", "code", "message"),
    [
        (TagstreamError("no  such\nsource"), "failed", 1, "no such source"),
        (ZeroDivisionError(), "failed", 1, "ZeroDivisionError"),
        (click.UsageError("not so"), "failed", 2, "not so"),
        (RunLockedError("held by x"), "locked", 5, "held by x"),
        (KeyboardInterrupt(), "interrupted", 130, ""),
        (click.Abort(), "interrupted", 130, ""),
        (Terminated(), "interrupted", 143, ""),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, BaseException) else None,
)
def test_a_failure_gives_the_state_the_exit_code_and_one_sentence(
    failure: BaseException, state: str, code: int, message: str
) -> None:
    outcome = Outcome()
    outcome.fail(failure)
    assert outcome == Outcome(state, code, message)
