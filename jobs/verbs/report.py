"""`tagstream report`: an HTML page about a run."""

from __future__ import annotations

from typing import Any

import click

from jobs.console.chosen_run import find_chosen_run
from jobs.console.live_line import LiveLine, clock
from jobs.console.options import (
    FiniteRange,
    WholeRange,
    check_page,
    labels_options,
    overwrite_option,
    read_run_option,
    store_argument,
    truth_option,
    vocabulary_option,
)
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.report.job import Report, ReportRequest


@click.command
@store_argument
@click.option("--out", required=True, help="HTML file to write, local or s3://.")
@read_run_option
@click.option("--compare", metavar="RUN", help="Show what the run gained and lost against this one.")
@click.option(
    "--sample",
    type=WholeRange(1, 5000),
    default=500,
    show_default=True,
    help="Number of pictures, drawn at random by --seed.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--where", metavar="SQL", help="Only pictures of images that meet this condition.")
@labels_options
@truth_option
@vocabulary_option
@click.option("--price", "usd_per_hour", type=FiniteRange(min=0), help="Price of all machines, in USD an hour.")
@click.option("--max-mb", type=FiniteRange(min=1), default=50, show_default=True, help="Largest size of the file.")
@overwrite_option
def report(store: str, out: str, run: str | None, vocabulary: str | None, **options: Any) -> None:
    """Write one HTML file about a run of STORE: a sample of its images with their labels and their truth, and charts of
    the whole run. The file can be opened from a disk, without a network.

    Pictures are made from the source that was labelled. The condition of --where is about the columns of `images`.
    Names that the vocabulary calls sensitive are left out; the page says how many.

    \b
    tagstream report STORE --out report.html
    tagstream report STORE --out cats.html --where "image_id IN (SELECT image_id FROM images_with('cat'))"
    tagstream report STORE --run NEW --compare OLD --out changes.html
    """
    check_page(out, "a report")
    words = read_vocabulary(vocabulary)
    run = find_chosen_run(store, run)
    made = Report(ReportRequest(store=store, out=out, run=run, vocabulary=words, vocabulary_path=vocabulary, **options))
    with LiveLine(lambda elapsed_s: f"{_describe(made)} · {clock(elapsed_s)} elapsed"):
        made.write()
    print_report(made)


def print_report(made: Report) -> None:
    """Prints what a report shows and where it is."""
    size_mb = made.n_bytes / 1e6
    click.echo(f"Report on run {made.run}: {made.n_pictures:,} pictures, {size_mb:,.1f} MB; open {made.request.out}")
    if made.problems:
        ((problem, n_images),) = made.problems.most_common(1)
        click.echo(f"{made.problems.total():,} images have no picture ({n_images:,}: {problem})")
    if made.left_out:
        click.echo(made.left_out)


def _describe(made: Report) -> str:
    if not made.n_drawn:
        return made.phase
    return f"{made.phase}: {made.n_tried:,}/{made.n_drawn:,}"
