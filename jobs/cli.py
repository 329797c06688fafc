"""The command `tagstream`: one verb a module."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any, NoReturn

import click

from jobs.console.log import is_json, say, say_trouble
from jobs.console.process import EXIT_FAILED, exit_code_of, terminate
from jobs.verbs.bench import bench
from jobs.verbs.compact import compact
from jobs.verbs.compare import compare
from jobs.verbs.demo import demo
from jobs.verbs.demo_corpus import demo_corpus
from jobs.verbs.explain import explain
from jobs.verbs.export import export
from jobs.verbs.import_nxtp import import_nxtp
from jobs.verbs.jobs import jobs
from jobs.verbs.label import label
from jobs.verbs.pack import pack
from jobs.verbs.plan import plan
from jobs.verbs.recall import recall
from jobs.verbs.report import report
from jobs.verbs.retry import retry
from jobs.verbs.sql import sql
from jobs.verbs.status import status
from jobs.verbs.submit import submit
from jobs.verbs.thresholds import thresholds
from jobs.verbs.train import train
from jobs.verbs.truncate import truncate
from pipeline.errors import RunLockedError, TagstreamError
from pipeline.text import one_line


class _Verbs(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # click would do so, too, but write an empty line first, which is no json.
            raise click.Abort from stop


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tagstream")
def tagstream() -> None:
    """Tag image corpora in bulk: labels with probabilities for every image, in Parquet, ready for SQL.

    \b
    tagstream demo                                    label the images that come along
    tagstream label s3://bucket/shards --store STORE  label your own
    tagstream sql STORE "SELECT * FROM labels"        ask
    """


for command in (
    label,
    plan,
    bench,
    retry,
    status,
    sql,
    recall,
    thresholds,
    compare,
    report,
    compact,
    export,
    explain,
    demo,
    pack,
    import_nxtp,
    demo_corpus,
    train,
    truncate,
    submit,
    jobs,
):
    tagstream.add_command(command)


def main() -> NoReturn:
    """Runs the command; every failure is one sentence on stderr and a non-zero exit."""
    signal.signal(signal.SIGTERM, terminate)
    try:
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
        say(str(error), level=logging.ERROR, prefix="Error: ")
        code = exit_code_of(error)
    except (click.Abort, KeyboardInterrupt) as stop:
        code = exit_code_of(stop)
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except Exception as error:
        if not is_json():
            raise
        say_trouble(one_line(error), error)
        code = EXIT_FAILED
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
