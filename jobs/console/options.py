"""Numbers of options."""

from __future__ import annotations

import math
from typing import Any

import click

from jobs.console.log import start_log


class FiniteRange(click.FloatRange):
    """A number of a range; click takes nan for one of any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def log_format_option(command: Any) -> Any:
    """The option `--log-format` of a verb."""

    def choose(context: click.Context, parameter: click.Parameter, value: str) -> None:
        start_log(value)

    return click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=choose,
        help="Of what is told on stderr.",
    )(command)


def closing_options(command: Any) -> Any:
    """The options `--summary` and `--notify` of a verb."""
    for option in (
        click.option("--notify", metavar="COMMAND|URL", help="Gets the same JSON: on stdin, or by POST."),
        click.option("--summary", metavar="FILE", help="What became of it, as JSON; local or s3://."),
    ):
        command = option(command)
    return command
