"""`tagstream plan`: predicts time, cost and size of labelling a source."""

from __future__ import annotations

from typing import Any

import click

from jobs.console.live_line import LiveLine, clock, describe
from jobs.console.options import (
    FiniteRange,
    WholeRange,
    actors_option,
    batch_size_option,
    column_names,
    column_options,
    config_option,
    format_option,
    model_option,
    near_duplicates_option,
    ray_address_option,
    reuse_option,
    reuse_settings,
    top_k_option,
    verbose_option,
)
from jobs.console.output import print_rows
from jobs.console.process import NOTHING_KEPT, job_process
from jobs.console.time_limits import time_limit_options
from jobs.verbs.label import label_settings
from pipeline.estimate import Estimate
from pipeline.forecast.forecast import Forecast
from pipeline.labelling.request import LabelRequest
from pipeline.labelling.time_limit import TimeLimit

_FLAG_SETTINGS = ("top_k", "batch_size", "actors", "skip_near_duplicates")


@click.command
@click.argument("source", nargs=-1, required=True)
@model_option
@click.option(
    "--sample",
    "n_images",
    type=WholeRange(1),
    default=2000,
    show_default=True,
    help="Images to label for the forecast.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random choice of shards.")
@click.option("--price", "usd_per_hour", type=FiniteRange(min=0), help="Price of all machines, in USD an hour.")
@time_limit_options
@reuse_option
@near_duplicates_option
@click.option("--gpus", "n_gpus", type=WholeRange(1), help="Predict for this many GPUs from the one here.")
@top_k_option
@column_options
@batch_size_option
@actors_option
@ray_address_option
@config_option("TOML with further settings of `label`.")
@format_option("table", "csv", "json")
@verbose_option
def plan(
    source: tuple[str, ...], model: str, config: str | None, output: str, time_limit: TimeLimit | None, **options: Any
) -> None:
    """Label a sample of SOURCE and predict what `tagstream label` will take for all of it: time, cost, size of the
    store, and which stage is the bottleneck. The labels of the sample are not kept.

    The sample is the first images of shards chosen at random. Ranges are 95 % intervals. Those of the number of images
    come from the differences between shards, those of the speed also from changes over time. They do not allow for
    other load on the machines later.

    \b
    tagstream plan s3://bucket/shards --model ./nxtp --price 2.50 --gpus 8
    tagstream plan SOURCE --format json > plan.json; tagstream label SOURCE --store STORE --plan plan.json
    """
    # Brings in Ray, which takes seconds to import.
    from pipeline.forecast.job import ForecastJob, ForecastRequest

    flags = {name: options.pop(name) for name in _FLAG_SETTINGS} | reuse_settings(options.pop("reuse"))
    settings = label_settings(config, flags)
    label = LabelRequest(
        source=source,
        store="",
        model=model,
        settings=settings,
        columns=column_names(options),
        address=options.pop("address"),
        verbose=options.pop("verbose"),
    )
    job = ForecastJob(ForecastRequest(label=label, n_gpus=options.pop("n_gpus") or 0, **options))
    with job_process(**NOTHING_KEPT), LiveLine(lambda elapsed_s: describe(job.progress.snapshot(), elapsed_s)):
        made = job.run()
    for note in job.notes:
        click.echo(f"Note: {note}.", err=True)
    show_forecast(made, output, time_limit)


def show_forecast(made: Forecast, output: str, time_limit: TimeLimit | None) -> None:
    """Prints a prediction as a table, as CSV or as JSON. What is labelled within a limit of time is a note beside these
    two."""
    if output == "table":
        print_forecast(made, time_limit)
        return
    if output == "json":
        click.echo(made.to_json(), nl=False)
    else:
        print_rows(("what", "value", "low", "high"), estimate_rows(made), output)
    if time_limit:
        click.echo(f"Note: covered are {_covered(made, time_limit)}.", err=True)


def estimate_rows(made: Forecast) -> list[tuple[object, ...]]:
    """One row an estimate of a prediction: its value and its 95 % interval."""
    estimates = {
        "images": made.n_images,
        "images_per_s": made.images_per_s,
        "seconds": made.seconds,
        "usd": made.usd,
        "output_bytes": made.output_bytes,
        "compacted_bytes": made.compacted_bytes,
    }
    return [(name, found.value, found.low, found.high) for name, found in estimates.items() if found is not None]


def print_forecast(made: Forecast, time_limit: TimeLimit | None = None) -> None:
    """Prints a prediction as a table.

    Args:
        time_limit: how long the job may take; the table says what it labels within it.
    """
    click.echo(
        f"From {made.n_sampled:,} images of {made.n_shards_sampled:,} of {made.n_shards:,} shards, "
        f"{made.n_rejected:,} of them rejected; {made.workers.n_actors} actors on {made.workers.device}\n"
    )
    lines = [
        ("images", _range(made.n_images, lambda value: f"{value:,.0f}")),
        ("images/s", _range(made.images_per_s, lambda value: f"{value:,.1f}")),
        ("wall time", f"{_range(made.seconds, clock)}; {clock(made.start_up_s)} of it to start"),
        ("cost", f"{_range(made.usd, lambda value: f'{value:,.2f}')} USD" if made.usd else "give --price to see it"),
        ("store", _range(made.output_bytes, _size)),
        ("compacted", _range(made.compacted_bytes, _size)),
        (
            "",
            f"labels {made.output.label_bytes_an_image:,.0f} B an image, compacted "
            f"{made.output.compacted_label_bytes_an_image:,.0f}; images {made.output.image_bytes_an_image:,.0f} B",
        ),
        ("bottleneck", made.bottleneck),
        *(
            [("reused", f"{made.n_reused / made.n_sampled:.0%} of the sample have labels already")]
            if made.n_reused
            else []
        ),
        *(
            [("skipped", f"{made.n_near_duplicates / made.n_sampled:.0%} of the sample look like an earlier image")]
            if made.n_near_duplicates
            else []
        ),
        *([("covered", _covered(made, time_limit))] if time_limit else []),
        *([("image", f"{made.n_image_tokens:,} tokens a view")] if made.n_image_tokens else []),
    ]
    for name, text in lines:
        click.echo(f"{name:<12}{text}")
    click.echo()
    columns = ("stage", "busy ms an image", "share %", "workers", "images/s at most")
    print_rows(
        columns,
        [
            (stage.stage, stage.seconds_an_image * 1e3, round(stage.share * 100, 1), stage.workers, stage.images_per_s)
            for stage in made.stages
        ],
    )
    for note in made.notes:
        click.echo(f"Note: {note}.")


def _covered(made: Forecast, limit: TimeLimit) -> str:
    """What a job labels within a limit of time, of all that there is."""
    n_images = limit.n_images(made.images_per_s.value, made.start_up_s)
    if n_images >= made.n_images.value:
        return f"all images, within {clock(limit.seconds)}"
    share = n_images / made.n_images.value
    return f"{n_images:,.0f} images ({share:.0%}) within {clock(limit.seconds)}; the same command goes on later"


def _range(estimate: Estimate, show: Any) -> str:
    value, low, high = map(show, (estimate.value, estimate.low, estimate.high))
    return value if low == high else f"{value} ({low} to {high})"


def _size(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:,.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.3g} TB"
