"""The command `tagstream`: finds the verb, and turns what it raises into one sentence and an exit code."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from jobs.console.log import is_json, say, say_trouble
from jobs.console.process import EXIT_FAILED, command_line, exit_code_of, terminate
from pipeline.background import has_abandoned_threads
from pipeline.errors import RunLockedError, TagstreamError
from pipeline.text import conceal, one_line

# Every verb with its line in `tagstream --help`. The verb `import-nxtp` is the function `import_nxtp` of the module
# jobs/verbs/import_nxtp.py; all others follow the same rule. A verb's own help does not import Ray or torch, which take
# seconds: imports that bring them in stand inside the functions that need them.
_SHORT_HELP = {
    "bench": "Measure how fast this machine reads, decodes, labels and commits.",
    "compact": "Merge many small files into a few large ones, for faster queries.",
    "compare": "Compare two runs: labels gained and lost, recall, rejects.",
    "demo": "Label sample images and query them in SQL.",
    "demo-corpus": "Make scenes with known content, as WebDataset shards.",
    "explain": "Show where a model looked for each label of an image.",
    "export": "Export images and labels to other tools.",
    "export-onnx": "Write a model as ONNX graphs, checked against torch.",
    "import-nxtp": "Make a model folder of the public NXTP checkpoint.",
    "jobs": "List the jobs of a Ray cluster; show, follow or stop one.",
    "label": "Label the images of a source; again, to resume or to label new ones.",
    "models": "List models of the hub to label with: licence, size, what was verified.",
    "pack": "Pack a folder of images into WebDataset shards.",
    "plan": "Predict what labelling a source will take, from a sample.",
    "recall": "Measure recall, precision and F1 of a run against its truth.",
    "report": "Make an HTML page about a run: images with their labels, charts.",
    "retry": "Try rejected samples again.",
    "review": "Bring what people decided about labels back into a store.",
    "sample": "Draw images of a run for people to review.",
    "score": "Score a list of names for a handful of images.",
    "sql": "Query a store in SQL.",
    "status": "Show what a store holds, and whether its numbers add up.",
    "submit": "Run a verb on a Ray cluster, as a job of its own.",
    "thresholds": "Learn for each name the score from which its labels are right.",
    "train": "Train a recognizer; --resume continues where training stopped.",
    "truncate": "Keep the first blocks of a model's decoder, to train a smaller model.",
    "vocabulary": "List names of a store that no vocabulary mentions.",
}


class _Verbs(Mapping[str, click.Command]):
    """The command of each verb; its module is imported when the command is asked for."""

    def __getitem__(self, verb: str) -> click.Command:
        if verb not in _SHORT_HELP:
            raise KeyError(verb)
        name = verb.replace("-", "_")
        command: click.Command = getattr(import_module(f"jobs.verbs.{name}"), name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_SHORT_HELP)

    def __len__(self) -> int:
        return len(_SHORT_HELP)


class _LazyGroup(click.Group):
    """Imports the module of the one verb that is invoked; its own help imports none."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, _SHORT_HELP[verb]) for verb in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # click would raise the same, but write an empty line first, which is not JSON.
            raise click.Abort from stop


@click.group(cls=_LazyGroup, commands=_Verbs(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tagstream")
def tagstream() -> None:
    """Tag image corpora in bulk: labels with probabilities for every image, in Parquet, ready for SQL.

    \b
    tagstream demo                                    label sample images
    tagstream label s3://bucket/shards --store STORE  label your own
    tagstream sql STORE "SELECT * FROM labels"        ask
    """


def main() -> NoReturn:
    """Runs the command; every failure is one sentence on stderr and a non-zero exit."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        _check_working_directory()
        code = tagstream(prog_name="tagstream", standalone_mode=False)
    except click.ClickException as error:
        if is_json():
            say(error.format_message(), level=logging.ERROR)
        else:
            error.show()
        code = exit_code_of(error)
    except RunLockedError as error:
        say(str(error), level=logging.WARNING, prefix="Skipped: ")
        code = exit_code_of(error)
    except TagstreamError as error:
        if error.__cause__ and "--verbose" in sys.argv and not is_json():
            _show_trace(error)
        say(str(error), level=logging.ERROR, prefix="Error: ")
        code = exit_code_of(error)
    except (click.Abort, KeyboardInterrupt) as stop:
        code = exit_code_of(stop)
    except BrokenPipeError:
        # The reader of the output (head, less) has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except Exception as error:
        _tell_of_fault(error)
        code = EXIT_FAILED
    _end(code if isinstance(code, int) else 0)


def _end(code: int) -> NoReturn:
    """Ends the process, also where it has threads that would keep Python from ending it."""
    if has_abandoned_threads():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    # Python looks for garbage once when modules are gone. To do so before as well takes most of a second after torch.
    gc.disable()
    sys.exit(code)


def _check_working_directory() -> None:
    """Raises TagstreamError where the working directory was deleted: libraries fail there with errors of any kind."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise TagstreamError("the working directory does not exist any more; change to one that does") from error


def _tell_of_fault(error: Exception) -> None:
    """Tells of an error in the code in one sentence; its traceback goes to a file, or with --verbose to stderr."""
    if is_json():
        say_trouble(one_line(error), error)
        return
    if "--verbose" in sys.argv:
        _show_trace(error)
        return
    trace = _trace(error)
    with tempfile.NamedTemporaryFile("w", prefix="tagstream-error-", suffix=".txt", delete=False) as file:
        file.write(f"{command_line()}\n\n{trace}")
    what = f"{type(error).__name__}: {one_line(error)}"
    say(f"this is a fault of tagstream: {what}; its traceback is in {file.name}", level=logging.ERROR, prefix="Error: ")


def _show_trace(error: Exception) -> None:
    click.echo(_trace(error), err=True, nl=False)


def _trace(error: Exception) -> str:
    return conceal("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main()
