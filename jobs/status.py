"""`tagstream status`: what a store holds, and whether it adds up."""

from __future__ import annotations

from typing import Any

import click

EXIT_DOES_NOT_ADD_UP = 1


@click.command(short_help="Show what a store holds, and whether it adds up.")
@click.argument("store")
@click.option("--run", help="Only this run.")
def status(store: str, run: str | None) -> int:
    """Show the runs of STORE: images = labelled + rejected, rejects by class, the last job.

    \b
    tagstream status s3://bucket/tags
    """
    from pipeline.catalog import open_store, query_rows

    connection = open_store(store)
    records = query_rows(connection, "records", {"run": run})
    if run is not None and not records:
        raise click.ClickException(f"there is no run {run} in {store}")
    totals = {row["run"]: row for row in query_rows(connection, "status", {"run": run})}
    adds_up = True
    for record in records:
        name = record["run"]
        click.echo(f"run {name}")
        click.echo(f"  made        {record['created']} from {record['source']}")
        click.echo(f"  model       {record['model']}")
        click.echo(f"  settings    {', '.join(f'{name} {value}' for name, value in record['labelling'].items())}")
        if name in totals:
            adds_up &= _print_totals(totals[name])
        else:
            click.echo("  images      none committed yet")
        for reject in query_rows(connection, "rejects", {"run": name}):
            click.echo(f"  rejected    {reject['n_rejected']:,} x {reject['error']} ({reject['stage']}), e.g.")
            click.echo(f"              {reject['example']}: {reject['message']}")
        _print_last_job(query_rows(connection, "last_job", {"run": name}))
    return 0 if adds_up else EXIT_DOES_NOT_ADD_UP


def _print_totals(row: dict[str, Any]) -> bool:
    click.echo(
        f"  images      {row['n_images']:,} = {row['n_labelled']:,} labelled + {row['n_rejected']:,} rejected, "
        f"in {row['n_shards']:,} shards"
    )
    click.echo(f"  labels      {row['n_labels']:,} ({row['n_unfinished']:,} branches unfinished)")
    images_add_up = row["n_images"] == row["n_labelled"] + row["n_rejected"]
    labels_add_up = row["n_labels"] == row["n_label_rows"]
    if not images_add_up:
        click.echo("  WRONG       images have a status that is neither labelled nor rejected")
    if not labels_add_up:
        click.echo(f"  WRONG       images name {row['n_labels']:,} labels, there are {row['n_label_rows']:,}")
    return bool(images_add_up and labels_add_up)


def _print_last_job(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        rate = f", {job['images_per_s']:,.0f} images/s" if job["images_per_s"] else ""
        click.echo(
            f"  last job    {job['started']} {job['outcome']}: {job['n_shards_committed']:,} shards, "
            f"{job['n_images']:,} images in {job['seconds']:,.1f} s{rate}"
        )
        if job["message"]:
            click.echo(f"              {job['message']}")
