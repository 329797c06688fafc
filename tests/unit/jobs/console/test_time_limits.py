"""When a job is to end, as people write it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner

from jobs.console.time_limits import Deadline, time_limit_options


@click.command
@time_limit_options
@click.option("--price", "usd_per_hour", type=float)
def command(time_limit: Any, usd_per_hour: float | None) -> None:
    click.echo(f"{time_limit.seconds:.0f} {time_limit.alarm}" if time_limit else "none")


def run(*arguments: str) -> str:
    return CliRunner().invoke(command, list(arguments)).output.strip()


def test_without_a_limit_there_is_none() -> None:
    assert run() == run("--price", "2") == "none"


def test_a_cost_is_as_many_seconds_as_it_pays() -> None:
    assert run("--max-cost", "5", "--price", "2.5") == "7200 cost > 5"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172_800)])
def test_a_deadline_may_be_so_long_from_now(text: str, seconds: int) -> None:
    before = datetime.now(UTC)
    deadline = Deadline().convert(text, None, None)
    assert before <= deadline - timedelta(seconds=seconds) <= datetime.now(UTC)


def test_a_deadline_may_be_a_time_with_or_without_a_zone() -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    assert Deadline().convert(later.isoformat(), None, None) == later
    assert Deadline().convert(later.astimezone().replace(tzinfo=None).isoformat(), None, None) == later


def test_the_first_of_two_limits_counts() -> None:
    assert run("--max-cost", "1", "--price", "1", "--deadline", "9h").endswith("cost > 1")
    assert "deadline" in run("--max-cost", "100", "--price", "1", "--deadline", "9h")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--max-cost", "5"), "--max-cost goes with --price"),
        (("--deadline", "soon"), "'soon' is no time; expected one such as 2026-12-01T06:00, or 90m"),
        (("--deadline", "2020-01-01"), "'2020-01-01' is over; expected a time to come"),
        (("--deadline", "0h"), "'0h' is over; expected a time to come"),
        (("--deadline", "99999999999d"), "'99999999999d' is no time; expected one such as"),
        (("--deadline", "9999-12-31T23:59-14:00"), "is no time; expected one such as"),
        (("--max-cost", "0", "--price", "1"), "--max-cost"),
    ],
)
def test_a_limit_that_is_none_says_what_to_write(arguments: tuple[str, ...], reason: str) -> None:
    assert reason in run(*arguments)
