"""`--deadline` and `--max-cost`: how long a job may take."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from jobs.console.options import FiniteRange
from pipeline.labelling.time_limit import TimeLimit

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Deadline(click.ParamType[datetime]):
    """A time, such as 2026-12-01T06:00, or so long from now: 90m, 8h. It becomes a UTC time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        now = datetime.now(UTC)
        try:
            if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value):
                deadline = now + timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
            else:
                # Without a zone it is the time of this machine.
                deadline = datetime.fromisoformat(value).astimezone(UTC)
        # Longer than the calendar is.
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time; expected one such as 2026-12-01T06:00, or 90m, 8h, 2d from now", param, ctx
            )
        if deadline <= now:
            self.fail(f"{value!r} is over; expected a time to come", param, ctx)
        return deadline


def time_limit_options(command: Any) -> Any:
    """The options `--deadline` and `--max-cost` of a verb, which come as one `TimeLimit` named `time_limit`, or None.

    The verb has an option `usd_per_hour`.
    """

    @functools.wraps(command)
    def choose(deadline: datetime | None, max_cost: float | None, **values: Any) -> Any:
        usd_per_hour = values["usd_per_hour"]
        if max_cost is not None and not usd_per_hour:
            raise click.UsageError("--max-cost goes with --price, what all machines cost an hour")
        limits = []
        if deadline is not None:
            alarm = f"deadline {deadline.isoformat(timespec='minutes')}"
            limits.append(TimeLimit((deadline - datetime.now(UTC)).total_seconds(), alarm))
        if max_cost is not None:
            limits.append(TimeLimit(max_cost / usd_per_hour * 3600, f"cost > {max_cost:g}"))
        return command(time_limit=min(limits, key=lambda limit: limit.seconds, default=None), **values)

    for option in (
        click.option("--max-cost", type=FiniteRange(min=0, min_open=True), metavar="USD", help="End at this cost."),
        click.option("--deadline", type=Deadline(), help="End before: 2026-12-01T06:00, or 8h."),
    ):
        choose = option(choose)
    return choose
