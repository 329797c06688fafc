"""Options of all verbs."""

from __future__ import annotations

import click
import pytest
from click.types import FloatParamType

from jobs.cli import tagstream

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
