"""A command that is sent to a cluster: the files that it reads are sent along, other paths have to exist there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

_FOLDER_OF_FILES = "inputs"
# Parameters whose folders or files may be large; they are not sent.
_NOT_SENT = {"source", "val", "store", "reuse", "out", "folder", "summary"}
# Parameters that may also be a name: of a model on a hub, of an image in a store.
_NAMES_OR_PATHS = {"model", "init", "teacher", "embedder", "image"}
_NOT_SEEN = (
    "a path on this machine, which the cluster does not see; give a URL such as s3://bucket/..., or an absolute path "
    "on a disk that all nodes of the cluster share"
)


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A verb's arguments for the cluster, and the local files that they name, by path in the upload."""

    arguments: list[str]
    files: dict[str, Path]


def prepare(command: click.Command, arguments: Sequence[str], parent: click.Context) -> SentCommand:
    """Checks the arguments of a verb and rewrites them for the cluster.

    Files of this machine that options name are uploaded, and so are lists (`@FILE`). Folders are not uploaded: source,
    store and models have to be URLs, or absolute paths, which are taken as paths on the cluster.

    Args:
        command: the verb.
        arguments: what the user gave after the verb's name.
        parent: context of `tagstream` itself.

    Raises UsageError for arguments that the verb would refuse, and for paths that the cluster does not see.
    """
    context = command.context_class(command, info_name=command.name, parent=parent)
    given, _, _ = command.make_parser(context).parse_args(list(arguments))
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if not isinstance(parameter.type, click.Path):
            # The verb's own check, so that a wrong choice or number fails before anything is sent.
            parameter.handle_parse_result(context, given, [])
        elif parameter.required and not isinstance(value, str):
            raise click.MissingParameter(ctx=context, param=parameter)
        if parameter.name in _NOT_SENT | _NAMES_OR_PATHS:
            known = isinstance(value, str | tuple | list)
            for one in _each(value if known else parameter.get_default(context)):
                _check_path(parameter, one, context)
    return _with_files(arguments, set(_file_flags(command)), context)


def _each(value: Any) -> list[Any]:
    """The values of a parameter that may have several."""
    return list(value) if isinstance(value, tuple | list) else [value]


def _check_path(parameter: click.Parameter, value: Any, context: click.Context) -> None:
    """Raises UsageError for a path that only this machine has."""
    if not isinstance(value, str) or "://" in value or value.startswith("@") or Path(value).is_absolute():
        return
    if parameter.name in _NAMES_OR_PATHS and not Path(value).exists():
        return
    raise click.UsageError(f"{parameter.get_error_hint(context)} is {value}, {_NOT_SEEN}", context)


def _file_flags(command: click.Command) -> Iterator[str]:
    """The flags of options that name a file to read."""
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
        uploaded = f"{_FOLDER_OF_FILES}/{len(files)}/{Path(path).name}"
        files[uploaded] = Path(path)
        return uploaded

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
    """Raises UsageError where a list names relative paths, which only this machine has."""
    lines = Path(path).read_text("utf-8").splitlines() if Path(path).is_file() else []
    for line in filter(None, map(str.strip, lines)):
        if "://" not in line and not line.startswith(("/", "#")):
            raise click.UsageError(f"{path} lists {line}, {_NOT_SEEN}", context)
