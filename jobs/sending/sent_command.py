"""A command as it is sent to a cluster: its own files go along, and paths mean the same there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

_FOLDER_OF_FILES = "inputs"
# What these name may be large, and stays where it is.
_PLACES = {"source", "val", "store", "out", "folder", "summary"}
# These may be names too: of a model on a hub, of an image in a store.
_NAMES_OR_PLACES = {"model", "init", "teacher", "embedder", "image"}
_NOT_SEEN = (
    "a path on this machine, which the cluster does not see; give a URL such as s3://bucket/..., or an absolute path "
    "on a disk that all nodes of the cluster share"
)


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A verb's arguments for the cluster, and the local files that they name, by their place in the upload."""

    arguments: list[str]
    files: dict[str, Path]


def prepare(command: click.Command, arguments: Sequence[str], parent: click.Context) -> SentCommand:
    """Checks the arguments of a verb and makes them right for another machine.

    Files of this machine that options name are uploaded, and so are lists (`@FILE`). Folders are not: those of the
    source, the store and models are URLs, or absolute paths, which are taken for the cluster's.

    Raises UsageError for whatever is wrong.
    """
    context = command.context_class(command, info_name=command.name, parent=parent)
    given, _, _ = command.make_parser(context).parse_args(list(arguments))
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if not isinstance(parameter.type, click.Path):
            # As the verb itself will understand them: a wrong choice or number is answered here.
            parameter.handle_parse_result(context, given, [])
        elif parameter.required and not isinstance(value, str):
            raise click.MissingParameter(ctx=context, param=parameter)
        if parameter.name in _PLACES | _NAMES_OR_PLACES:
            _check_place(parameter, value if isinstance(value, str) else parameter.get_default(context), context)
    return _with_files(arguments, set(_file_flags(command)), context)


def _check_place(parameter: click.Parameter, value: Any, context: click.Context) -> None:
    """Refuses folders of this machine."""
    if not isinstance(value, str) or "://" in value or value.startswith("@") or Path(value).is_absolute():
        return
    if parameter.name in _NAMES_OR_PLACES and not Path(value).exists():
        return
    raise click.UsageError(f"{parameter.get_error_hint(context)} is {value}, {_NOT_SEEN}", context)


def _file_flags(command: click.Command) -> Iterator[str]:
    """The options that name a file to read."""
    for parameter in command.params:
        if isinstance(parameter.type, click.Path) and parameter.type.exists and isinstance(parameter, click.Option):
            yield from parameter.opts


def _with_files(arguments: Sequence[str], file_flags: set[str], context: click.Context) -> SentCommand:
    files: dict[str, Path] = {}

    def sent(path: str) -> str:
        if not Path(path).is_file():
            if Path(path).is_absolute():
                return path
            raise click.UsageError(f"there is no file {path} on this machine", context)
        place = f"{_FOLDER_OF_FILES}/{len(files)}/{Path(path).name}"
        files[place] = Path(path)
        return place

    rewritten = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if before in file_flags:
            rewritten.append(sent(argument))
        elif equals and flag in file_flags:
            rewritten.append(f"{flag}={sent(value)}")
        elif argument.startswith("@") and "://" not in argument:
            _check_list(argument[1:], context)
            rewritten.append("@" + sent(argument[1:]))
        else:
            rewritten.append(argument)
    return SentCommand(rewritten, files)


def _check_list(path: str, context: click.Context) -> None:
    """Refuses a list of shards of this machine."""
    lines = Path(path).read_text("utf-8").splitlines() if Path(path).is_file() else []
    for line in filter(None, map(str.strip, lines)):
        if "://" not in line and not line.startswith(("/", "#")):
            raise click.UsageError(f"{path} lists {line}, {_NOT_SEEN}", context)
