"""Options of all verbs."""

from __future__ import annotations

import click
import pytest
from click.types import FloatParamType

from jobs.cli import tagstream
from jobs.console.options import describe_range

NUMBERS = [
    (verb, option)
    for verb, command in sorted(tagstream.commands.items())
    for option in command.params
    if isinstance(option.type, FloatParamType)
]


@pytest.mark.parametrize(("verb", "option"), NUMBERS, ids=lambda part: part if isinstance(part, str) else part.name)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_finite_number_is_refused(verb: str, option: click.Option, value: str) -> None:
    with pytest.raises(click.BadParameter):
        option.type_cast_value(click.Context(tagstream.commands[verb]), value)


@pytest.mark.parametrize("verb", sorted(tagstream.commands))
def test_the_help_speaks_of_no_end_that_a_range_does_not_have(verb: str) -> None:
    command = tagstream.commands[verb]
    assert "None]" not in command.get_help(click.Context(command, info_name=verb))


@pytest.mark.parametrize(
    ("low", "high", "is_above_low", "text"),
    [
        (None, None, False, ""),
        (None, 5, False, "up to 5"),
        (0.1, None, False, "0.1 or more"),
        (1, 200, False, "1 to 200"),
        (0, 1, True, "above 0, up to 1"),
        (0, None, True, "above 0"),
    ],
)
def test_a_range_is_told_in_words(low: float | None, high: float | None, is_above_low: bool, text: str) -> None:
    assert describe_range(low, high, is_above_low) == text
