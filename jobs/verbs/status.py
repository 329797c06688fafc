"""`tagstream status`: the runs of a store, whether their counts add up, and how far they are with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from jobs.console.live_line import LiveLine, clock
from jobs.console.options import closing_options, drift_condition_option, only_run_option, store_argument
from jobs.console.paste import to_paste
from jobs.verbs.status_verify import verify_store
from model.demo_scenes import describe_strangers
from pipeline.errors import StorageError, StoreError, TagstreamError
from pipeline.labelling.source_status import SourceStatus, compare_with_source, labelling_command
from pipeline.sources.contents import describe_skipped
from pipeline.store.lists import RunLists
from pipeline.store.lock import describe_holder, find_left_locks, read_locks
from pipeline.store.ownership import CommittedShards
from pipeline.store.run import Run
from pipeline.store.run_choice import match_run
from pipeline.store.store import Store, no_store
from pipeline.text import counted, one_line, printable
from pipeline.upkeep.counting import RunCounts, count_run
from schemas import JobRecord, RunRecord

EXIT_DOES_NOT_ADD_UP = 1
_N_NAMED = 3


@click.command
@store_argument
@only_run_option
@click.option("--verify", is_flag=True, help="Read all files and list what is damaged or left over.")
@click.option("--repair", is_flag=True, help="Verify, and repair what is safe to repair.")
@click.option("--since", metavar="WHEN|RUN", help="Test for drift since then: 2026-12-01, 24h, or a run.")
@drift_condition_option
@closing_options
def status(
    store: str,
    run: str | None,
    verify: bool,
    repair: bool,
    since: str | None,
    conditions: tuple[str, ...],
    summary: str | None,
    notify: str | None,
) -> int:
    """Show the runs of STORE: images = labelled + rejected, rejects by error, shards that are open, changed or missing
    at the source, the last job. Exit code 1 where the numbers do not add up.

    --verify reads every file and checks checksums, columns, counts, ranks and references. Exit code 1 where a file is
    damaged. --repair removes damaged shards, so that the next `tagstream label` labels them again, and deletes
    leftovers of killed jobs. Files that a running job may be writing are left alone.

    --since tests whether names, scores, unfinished branches, rejects and image sizes moved since then by more than
    sampling explains; at most one night in a hundred is a false alarm.

    \b
    tagstream status s3://bucket/tags
    tagstream status s3://bucket/tags --verify
    tagstream status s3://bucket/tags --since 24h --fail-if drift
    """
    if since is not None:
        if verify or repair:
            raise click.UsageError("--since looks at labels, --verify and --repair at files; give one of them")
        from jobs.verbs.status_since import show_since

        return show_since(store, run, since, conditions, summary, notify)
    if conditions or summary or notify:
        raise click.UsageError("--fail-if, --summary and --notify go with --since")
    if verify or repair:
        return verify_store(store, run, repair)

    opened = Store(store)
    if not opened.exists():
        raise no_store(store)
    names = opened.run_names()
    runs = [opened.run(name) for name in (names if run is None else [match_run(opened, names, run)])]
    records = sorted(
        ((record, each) for each in runs if (record := each.read_record()) is not None),
        key=lambda pair: (pair[0].created, pair[0].run),
    )
    add_up = [_show_run(each, record) for record, each in records]
    return 0 if all(add_up) else EXIT_DOES_NOT_ADD_UP


def _show_run(run: Run, record: RunRecord) -> bool:
    """Prints a run; returns whether its numbers add up."""
    committed, counts = _count(run)
    jobs = run.read_jobs()
    click.echo(f"run {record.run}")
    click.echo(f"  made        {record.created} from {printable(record.source)}")
    click.echo(f"  model       {record.model}")
    click.echo(f"  settings    {', '.join(f'{name} {value}' for name, value in record.labelling.items())}")
    adds_up = True
    if counts.n_images:
        adds_up = _print_totals(counts)
    else:
        click.echo("  images      none committed yet")
    for reject in counts.rejects:
        _print_rejects(reject)
    _print_strangers(jobs)
    _print_lists(run, committed)
    _print_lock(run)
    _print_source(run, record, jobs, committed)
    if jobs:
        _print_last_job(jobs[-1])
    return adds_up


def _count(run: Run) -> tuple[CommittedShards, RunCounts]:
    try:
        with LiveLine(lambda elapsed_s: f"run {run.name}: counting · {clock(elapsed_s)} elapsed"):
            committed = run.committed()
            return committed, count_run(run, committed)
    except StorageError:
        raise
    except StoreError as error:
        hint = f"`{to_paste('status', run.store_url, '--verify')}` finds what is damaged"
        raise StoreError(f"{one_line(error)}; {hint}") from error


def _print_totals(counts: RunCounts) -> bool:
    click.echo(
        f"  images      {counts.n_images:,} = {counts.n_labelled:,} labelled + {counts.n_rejected:,} rejected, "
        f"in {counted(counts.n_shards, 'shard')}"
    )
    if counts.n_flat:
        click.echo(f"  flat        {counts.n_flat:,} of one colour to the model")
    if counts.n_reused:
        click.echo(f"  reused      {counts.n_reused:,} have the labels of an image of the same content")
    if counts.n_near_duplicates:
        click.echo(f"  near        {counts.n_near_duplicates:,} have the labels of an image that looks alike")
    click.echo(f"  labels      {counts.n_labels:,} ({counts.n_unfinished:,} branches unfinished)")
    images_add_up = counts.n_images == counts.n_labelled + counts.n_rejected
    labels_add_up = counts.n_labels == counts.n_label_rows
    if not images_add_up:
        click.echo("  WRONG       images have a status that is neither labelled nor rejected")
    if not labels_add_up:
        click.echo(f"  WRONG       images name {counts.n_labels:,} labels, there are {counts.n_label_rows:,}")
    return images_add_up and labels_add_up


def _print_rejects(reject: dict[str, Any]) -> None:
    click.echo(f"  rejected    {reject['n_rejected']:,} x {reject['error']} ({reject['stage']}), e.g.")
    for example in reject["examples"]:
        sample = f"{example['shard']}/{example['key']}"
        click.echo(f"              {printable(sample)}: {printable(example['message'] or '')}")


def _print_strangers(jobs: Sequence[JobRecord]) -> None:
    n_seen = sum(job.n_labelled - job.n_reused for job in jobs)
    if note := describe_strangers(sum(job.n_strange for job in jobs), n_seen):
        click.echo(f"  note        {note}")


def _print_lists(run: Run, committed: CommittedShards) -> None:
    lists = RunLists(run)
    for record in lists.records():
        n_listed = len(lists.files(record.version, committed).owners)
        scored = f"scored in {n_listed:,} of {len(committed):,} shards"
        click.echo(f"  list        {record.version}: {len(record.names):,} names, {scored}")


def _print_lock(run: Run) -> None:
    left = find_left_locks(run)
    for lock in read_locks(run):
        state = "expired, left by a job that was killed: " if lock in left else ""
        click.echo(f"  lock        {state}{printable(describe_holder(lock))}")


def _print_source(run: Run, record: RunRecord, jobs: Sequence[JobRecord], committed: CommittedShards) -> None:
    """Prints how far the run is with its source, or why the source cannot be read."""
    try:
        with LiveLine(lambda elapsed_s: f"run {run.name}: listing the source · {clock(elapsed_s)} elapsed"):
            at_source = compare_with_source(run, record, committed)
    except TagstreamError as error:
        click.echo(f"  source      could not be looked at: {printable(str(error))}")
        return
    _print_source_status(at_source, labelling_command(jobs))


def _print_source_status(at_source: SourceStatus, command: str | None) -> None:
    n_open = len(at_source.open)
    done = f"{at_source.n_committed:,} committed, {n_open:,} open" if n_open else "all committed"
    click.echo(f"  source      {at_source.n_source:,} shards now: {done}")
    if n_open:
        click.echo(f"  open        {_named(at_source.open)}")
        if command:
            click.echo(f"              to go on: {printable(command)}")
    if at_source.changed:
        click.echo(f"  changed     {_named(at_source.changed)}; label with --changed relabel to renew")
    if at_source.missing:
        click.echo(f"  missing     {_named(at_source.missing)}; committed, no longer at the source")
    if at_source.skipped:
        click.echo(f"  left out    {describe_skipped(at_source.skipped)}")
    if at_source.n_images_gone:
        click.echo(f"  missing     {at_source.n_images_gone:,} committed images are no longer in the folder")


def _named(shards: list[str]) -> str:
    """The number of shards and the names of the first three."""
    more = f" and {len(shards) - _N_NAMED:,} more" if len(shards) > _N_NAMED else ""
    return f"{len(shards):,}: {', '.join(printable(shard) for shard in shards[:_N_NAMED])}{more}"


def _print_last_job(job: JobRecord) -> None:
    if job.outcome == "running":
        click.echo(f"  last job    running since {job.started}, or was killed")
        return
    listed = f", names scored in {job.n_shards_listed:,} more shards" if job.n_shards_listed else ""
    rate = f", labelling at {job.images_per_s:,.1f} images/s" if job.images_per_s else ""
    predicted = f" (predicted: {job.predicted_s:,.1f} s)" if job.predicted_s else ""
    click.echo(
        f"  last job    {job.started} {job.outcome}: {counted(job.n_shards_committed, 'shard')}, "
        f"{counted(job.n_images, 'image')} in {job.seconds:,.1f} s{predicted}{rate}{listed}"
    )
    if job.message:
        click.echo(f"              {printable(job.message)}")
