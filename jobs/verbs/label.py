"""`tagstream label`: labels the images of a source and writes tables to a store."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.closing.closing import closing
from jobs.closing.summary import PendingJob
from jobs.console.config_file import read_config
from jobs.console.live_line import LiveLine, describe
from jobs.console.log import identify_by, say
from jobs.console.options import (
    EXISTING_FILE,
    FiniteRange,
    actors_option,
    batch_size_option,
    closing_options,
    column_names,
    column_options,
    config_option,
    lock_option,
    log_format_option,
    model_option,
    names_options,
    near_duplicates_option,
    ray_address_option,
    reuse_option,
    reuse_settings,
    top_k_option,
    verbose_option,
)
from jobs.console.paste import to_paste
from jobs.console.process import command_line, job_process
from jobs.console.time_limits import time_limit_options
from model.folder import DEMO_MODEL
from pipeline.forecast.forecast import Forecast
from pipeline.labelling.progress import LABELLING, LOADING_MODEL, STARTING_RAY, STARTING_WORKERS
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.naming.name_list import DEFAULT_TOP, NameList, read_names
from pipeline.settings.labelling import LabelSettings
from pipeline.settings.toml_file import read_settings
from pipeline.sources.contents import describe_skipped
from pipeline.sources.listing import source_name
from pipeline.text import counted
from schemas import JobRecord

if TYPE_CHECKING:
    from pipeline.labelling.job import LabelJob

EXIT_TOO_MANY_REJECTS = 3
# A broken source is caught without being asked for; among fewer images chance alone may reject half.
_DEFAULT_MAX_REJECT_RATE, _MIN_JUDGED = 0.5, 20
DEMO_NOTICE = (
    "The model is tagstream's demo model: it knows pictograms in composed scenes, not photographs; "
    "`tagstream models` lists models for photographs, name one with --model."
)
_WHY = "SELECT error, any_value(message) AS example, count(*) AS n FROM rejects GROUP BY error ORDER BY n DESC"
_TOP_LABELS = "SELECT name, count(*) AS n FROM labels GROUP BY name ORDER BY n DESC LIMIT 10"
# Flags that are also settings: a flag overrides --config.
_FLAG_SETTINGS = ("top_k", "limit", "changed", "batch_size", "actors", "skip_near_duplicates")


@click.command
@click.argument("source", nargs=-1, required=True)
@click.option("--store", required=True, help="Folder or s3:// for the tables.")
@model_option
@top_k_option
@click.option("--run", help="Name of the run.  [default: model, fingerprint]")
@names_options
@click.option("--limit", type=int, metavar="N", help="Label N images; tars and Parquet files whole.")
@time_limit_options
@click.option("--price", "usd_per_hour", type=FiniteRange(min=0), help="Machines, USD an hour.")
@click.option(
    "--changed",
    type=click.Choice(["keep", "relabel", "fail"]),
    metavar="POLICY",
    help="Changed shards: keep, relabel, fail.  [keep]",
)
@click.option(
    "--max-reject-rate",
    type=FiniteRange(0, 1),
    help="Exit 3 above this share.  [default: 0.5]",
)
@click.option("--count-skipped", is_flag=True, help="Count what is left out as rejected.")
@reuse_option
@near_duplicates_option
@column_options
@batch_size_option
@actors_option
@ray_address_option
@config_option("TOML with further settings.")
@lock_option
@closing_options
@log_format_option
@click.option(
    "--plan",
    type=EXISTING_FILE,
    help="JSON of `tagstream plan`, kept with the job.",
)
@verbose_option
def label(
    source: tuple[str, ...],
    store: str,
    max_reject_rate: float | None,
    count_skipped: bool,
    summary: str | None,
    notify: str | None,
    **flags: Any,
) -> int:
    """Label the images of SOURCE and write labels and images as Parquet to STORE.

    SOURCE is a folder of images, or one with tars (WebDataset), zips or Parquet files, some of these files, a glob, a
    pattern {00000..00099}.tar, or @FILE with one URL a line; local or s3://. Several make one run.

    `tagstream models` lists models of the hub. --names scores old runs, too.

    \b
    tagstream label s3://bucket/shards --store s3://bucket/tags --model ./nxtp --top-k 10
    tagstream label photos --store tags --names animals.txt --names-top 50
    """
    # Brings in Ray, which takes seconds to import.
    from pipeline.labelling.job import LabelJob

    # What `--max-cost` is reckoned by, and nothing else.
    flags.pop("usd_per_hour")
    pending = PendingJob("label", source_name(source), store)
    with closing(pending.summarize, summary, notify) as outcome:
        pending.job = LabelJob(_request(source, store, **flags))
        result = run_job(pending.job)
        report(result, store)
        if result.record.n_labelled:
            propose_next(store)
        outcome.alarms = judge(result, max_reject_rate, count_skipped)
        outcome.exit_code = EXIT_TOO_MANY_REJECTS if outcome.alarms else 0
        outcome.alarms += [result.alarm] if result.alarm else []
    return outcome.exit_code


def _request(source: tuple[str, ...], store: str, model: str, config: str | None, **flags: Any) -> LabelRequest:
    reuse = reuse_settings(flags.pop("reuse"))
    settings = label_settings(config, {name: flags.pop(name) for name in _FLAG_SETTINGS} | reuse)
    plan, columns = flags.pop("plan"), column_names(flags)
    lists = read_lists(flags.pop("names"), flags.pop("names_top"), flags.pop("names_min_score"))
    if plan and lists:
        raise click.UsageError("--plan is a prediction without scores of --names; leave one of them out")
    if model == DEMO_MODEL:
        say(DEMO_NOTICE)
    return LabelRequest(
        source=source,
        store=store,
        model=model,
        settings=settings,
        columns=columns,
        lists=lists,
        command=command_line(),
        predict=Forecast.read(plan).seconds_of if plan else None,
        **flags,
    )


def read_lists(files: tuple[str, ...], top: int | None, min_score: float | None) -> tuple[NameList, ...]:
    """The lists of names that files hold. Raises click.UsageError for limits without a list.

    Args:
        top: how many names an image keeps; None keeps 20, or any number where there is a lowest score.
        min_score: the lowest score that is kept; None keeps any.
    """
    if not files and (top is not None or min_score is not None):
        raise click.UsageError("--names-top and --names-min-score go with --names FILE")
    if top is None:
        top = DEFAULT_TOP if min_score is None else 0
    lists = [read_names(file, top, min_score or 0.0) for file in files]
    return tuple({of_list.version: of_list for of_list in lists}.values())


def label_settings(config: str | None, flags: dict[str, Any]) -> LabelSettings:
    """The settings of a file and of flags; a flag that is given overrides the file."""
    given = {name: value for name, value in flags.items() if value is not None}
    return read_settings(LabelSettings, {**read_config(config), **given}, config or "the command line")


def run_job(job: LabelJob) -> LabelOutcome:
    """Runs a labelling job with a live line and prints its notes; where the user stops it, says how to go on."""

    def draw(elapsed_s: float) -> str:
        return describe(job.progress.snapshot(), elapsed_s)

    identify_by(lambda: {"run": job.run_name, "job": job.started_at})
    try:
        with job_process(), LiveLine(draw, lambda: asdict(job.progress.snapshot())):
            outcome = job.run()
    except KeyboardInterrupt:
        done = job.progress.snapshot().n_shards_done
        stopped = f"Stopped. {done:,} shards of this job are committed; run the same command to go on."
        say(stopped, level=logging.WARNING, prefix="\n")
        raise
    for note in outcome.notes:
        say(f"{note}.", level=logging.WARNING, prefix="Note: ")
    return outcome


def judge(outcome: LabelOutcome, max_reject_rate: float | None, count_skipped: bool = False) -> list[str]:
    """What is wrong with a job that went through, as alarms: nothing was labelled, or too much rejected.

    Args:
        max_reject_rate: share from 0 to 1 that may be rejected; None is half of what is not very little.
        count_skipped: whether files that this job was the first to leave out count as rejected images.
    """
    record = outcome.record
    n_skipped = record.n_skipped_new if count_skipped else 0
    n_judged, n_rejected = record.n_images + n_skipped, record.n_rejected + n_skipped
    if record.n_images and not record.n_labelled:
        say(f"None of the {record.n_images:,} images could be labelled.", level=logging.ERROR)
        return ["nothing labelled"]
    limit = max_reject_rate
    if limit is None:
        limit = _DEFAULT_MAX_REJECT_RATE if n_judged >= _MIN_JUDGED else 1.0
    if n_judged and n_rejected / n_judged > limit:
        what = "rejected or left out" if n_skipped else "rejected"
        rate = f"{n_rejected / n_judged:.1%} of the images were {what}, more than the {limit:.1%} allowed."
        say(rate, level=logging.ERROR)
        return [f"reject_rate > {limit}"]
    return []


def report(outcome: LabelOutcome, store: str) -> None:
    """Prints what a labelling job did."""
    record = outcome.record
    if record.n_shards_listed:
        click.echo(f"Scored the names for {record.n_shards_listed:,} shards that were labelled already")
    if record.lists and (record.n_shards_committed or record.n_shards_listed):
        click.echo(f"Listed labels: {record.n_listed:,} of {', '.join(record.lists)}; --labels listed reads them")
    if not record.n_shards_committed and not record.n_shards_listed:
        done = f"all {record.n_shards_source:,} shards are labelled already (run {record.run})."
        click.echo(f"Nothing to do: {done}" if not outcome.alarm else f"Labelled no shard of run {record.run} in time.")
        _report_skipped(outcome)
        return
    if record.n_shards_committed:
        _report_labelled(record, store)
    _report_skipped(outcome)
    click.echo(f"Run {record.run} in {store}")


def _report_skipped(outcome: LabelOutcome) -> None:
    if outcome.skipped:
        click.echo(f"Left out: {describe_skipped(outcome.skipped)}")


def _report_labelled(record: JobRecord, store: str) -> None:
    found = f"Labelled {counted(record.n_labelled, 'image')} in {counted(record.n_shards_committed, 'shard')}"
    rejected = f"{counted(record.n_labels, 'label')}, {counted(record.n_rejected, 'image')} rejected"
    click.echo(f"{found}: {rejected}, {record.seconds:,.1f} s")
    if record.n_reused:
        click.echo(f"Reused: {counted(record.n_reused, 'image')} of these have the labels of an equal image")
    if record.n_near_duplicates:
        alike = counted(record.n_near_duplicates, "image")
        click.echo(f"Skipped: {alike} of these have the labels of an image that looks alike")
    click.echo(f"Time: {_describe_phases(record)}")
    if record.n_rejected:
        click.echo(f"Why: {to_paste('sql', store, '--run', record.run, _WHY)}")
    if record.n_flat:
        are = "1 image is" if record.n_flat == 1 else f"{record.n_flat:,} images are"
        click.echo(f"{are} of one colour to the model (images.flat): such labels mean little")


def propose_next(store: str) -> None:
    """Prints what people do after a job, as commands to paste."""
    # The page of a store in a bucket is proposed for the working directory.
    place = store.rstrip("/")
    page = f"{place.rsplit('/', 1)[-1] if '://' in store else place}-report.html"
    overwrite = ["--overwrite"] if Path(page).exists() else []
    click.echo("Next:")
    for words in (
        ("sql", store, "--run", "latest", _TOP_LABELS),
        ("report", store, "--out", page, *overwrite),
        ("status", store),
    ):
        click.echo(f"  {to_paste(*words)}")


def _describe_phases(record: JobRecord) -> str:
    """Where the seconds went, and how many images a second that were while it labelled, where that can be told."""
    phases = {LABELLING: record.labelling_s}
    if record.ray_start_s:
        phases = {STARTING_RAY: record.ray_start_s, STARTING_WORKERS: record.workers_start_s, **phases}
    else:
        phases = {LOADING_MODEL: record.workers_start_s, **phases}
    told = ", ".join(f"{phase} {seconds:,.1f} s" for phase, seconds in phases.items())
    rate = f" at {record.images_per_s:,.1f} images/s" if record.images_per_s else ""
    return f"{told}{rate}"
