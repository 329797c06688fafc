"""Options that several verbs have, each declared once, and the types of their values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import click

from jobs.console.log import start_log
from pipeline.catalog.label_choice import KINDS, LabelChoice
from pipeline.sources.shard import ColumnNames


class FiniteRange(click.FloatRange):
    """A number within a range, never nan or infinite: click's own range accepts nan."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        return describe_range(self.min, self.max, self.min_open)


class WholeRange(click.IntRange):
    """A whole number within a range, which help describes in words."""

    name = "number"

    def _describe_range(self) -> str:
        return describe_range(self.min, self.max, self.min_open)


def describe_range(low: float | None, high: float | None, is_above_low: bool) -> str:
    """A range in words: `1 to 200`, `0 or more`, `above 0, up to 1`; empty for one without ends."""
    if low is None:
        return "" if high is None else f"up to {high:g}"
    if is_above_low:
        return f"above {low:g}" + ("" if high is None else f", up to {high:g}")
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"


def check_page(out: str, what: str) -> None:
    """Raises UsageError where `--out` has the name of something else than a page.

    Args:
        what: what is one page: "a report".
    """
    if PurePosixPath(out).suffix.lower() not in ("", ".html", ".htm"):
        raise click.UsageError(f"--out is {out}; {what} is one HTML page, expected a name in .html")


EXISTING_FILE = click.Path(exists=True, dir_okay=False)

# The store that a verb reads.
store_argument = click.argument("store")

_RUN = "A run's name, its unique beginning, or latest."
read_run_option = click.option("--run", help=f"{_RUN}  [default: latest]")
changed_run_option = click.option("--run", help=f"{_RUN}  [default: the only one]")
only_run_option = click.option("--run", help=f"{_RUN}  [default: all]")
truth_option = click.option(
    "--truth",
    type=click.Choice(["labels", "captions", "reviews"]),
    default="labels",
    show_default=True,
    help="reviews: what people said of a sample.",
)
vocabulary_option = click.option(
    "--vocabulary", type=EXISTING_FILE, help="Names of labels, as TOML or CSV.  [default: built in]"
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the file where it exists.")

_LIST = "A list's version or its unique beginning."


def labels_options(command: Any) -> Any:
    """The options `--labels` and `--list` of a verb, which come as one `LabelChoice` named `labels`."""

    @functools.wraps(command)
    def choose(labels: Any, of_list: str | None, **values: Any) -> Any:
        return command(labels=LabelChoice(labels, of_list), **values)

    for option in (
        click.option("--list", "of_list", metavar="LIST", help=f"{_LIST}  [default: the latest]"),
        click.option(
            "--labels", type=click.Choice(KINDS), default="open", show_default=True, help="listed: scores of --names."
        ),
    ):
        choose = option(choose)
    return choose


model_option = click.option(
    "--model",
    default="demo",
    show_default=True,
    help="Folder, hub name or s3://.",
)
top_k_option = click.option("--top-k", type=int, metavar="N", help="Labels looked for, 1 to 200.  [default: 20]")
batch_size_option = click.option(
    "--batch-size", type=int, metavar="N", help="Images labelled together.  [default: by device]"
)
actors_option = click.option("--actors", type=int, metavar="N", help="Labelling processes.  [default: by device]")

ray_address_option = click.option("--address", help="Ray to use: host:port, auto, or local.")
head_address_option = click.option(
    "--address", help="Head of the cluster, http://HEAD:8265.  [default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS]"
)
lock_option = click.option("--lock", is_flag=True, help="Exit with 5 if another job works on the run.")
reuse_option = click.option(
    "--reuse", multiple=True, metavar="STORE", help="Reuse labels of equal images; may be repeated."
)
near_duplicates_option = click.option(
    "--skip-near-duplicates", is_flag=True, default=None, help="Label one of those that look alike in a shard."
)
verbose_option = click.option("--verbose", is_flag=True, help="Show Ray's own log, and tracebacks.")


def column_options(command: Any) -> Any:
    """The options of a verb that say what the columns of Parquet files are; `column_names` takes them."""
    for role, what in (
        ("label", "of given labels"),
        ("caption", "of captions"),
        ("key", "of image names"),
        ("image", "of the images"),
    ):
        option = click.option(f"--{role}-column", metavar="NAME", help=f"Parquet column {what}.  [default: found]")
        command = option(command)
    return command


def column_names(flags: dict[str, Any]) -> ColumnNames:
    """Takes the flags of `column_options` out of all flags."""
    return ColumnNames(**{role: flags.pop(f"{role}_column") for role in ("image", "key", "caption", "label")})


def names_options(command: Any) -> Any:
    """The options `--names`, `--names-top` and `--names-min-score` of a verb."""
    for option in (
        click.option("--names-min-score", type=FiniteRange(0, 1), help="Lowest score kept.  [default: 0]"),
        click.option("--names-top", type=WholeRange(0), help="Names kept; 0: all.  [default: 20]"),
        click.option("--names", multiple=True, type=EXISTING_FILE, help="Names to score, one a line; may be repeated."),
    ):
        command = option(command)
    return command


def reuse_settings(stores: tuple[str, ...]) -> dict[str, Any]:
    """The settings that the option `--reuse` stands for; none without it."""
    return {"reuse": True, "reuse_stores": stores} if stores else {}


def config_option(help_text: str) -> Callable[[Any], Any]:
    """The option `--config` of a verb, which names a TOML file."""
    return click.option("--config", type=EXISTING_FILE, help=help_text)


def format_option(*formats: str) -> Callable[[Any], Any]:
    """The option `--format` of a verb: how it prints its result. The first format is the default."""
    return click.option("--format", "output", type=click.Choice(formats), default=formats[0], show_default=True)


drift_condition_option = click.option(
    "--fail-if", "conditions", multiple=True, metavar="CONDITION", help='Exit with 4 if this holds: "drift > 0.05".'
)


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
        help="Format of stderr.",
    )(command)


def closing_options(command: Any) -> Any:
    """The options `--summary` and `--notify` of a verb."""
    for option in (
        click.option("--notify", metavar="COMMAND|URL", help="Send it to a command's stdin, or by POST."),
        click.option("--summary", metavar="FILE", help="Write the outcome as JSON, local or s3://."),
    ):
        command = option(command)
    return command
