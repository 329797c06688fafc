"""`tagstream sample`: draws images of a run for people to review."""

from __future__ import annotations

from typing import Any

import click

from jobs.console.chosen_run import find_chosen_run
from jobs.console.options import WholeRange, check_page, read_run_option, store_argument, vocabulary_option
from jobs.console.paste import to_paste
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.reviews.drawing import WAYS, Draw
from pipeline.reviews.files import TOOLS
from pipeline.reviews.job import REVIEW_FILE, SampleRequest, sample_for_review
from pipeline.text import printable

_DO = {
    "page": "open {out} in a browser, decide, and save the file",
    "csv": f"fill in the column verdict of {{out}}/{REVIEW_FILE} (yes, no, unsure), and add rows for what is missing",
    "label-studio": "make a project with {out}/config.xml, import {out}/tasks.json, review, and export as JSON",
    "fiftyone": "tag predictions yes, no or unsure in the App, put what is missing into the field added, and export",
}
_BACK = {
    "page": "review.json",
    "csv": "{out}/" + REVIEW_FILE,
    "label-studio": "export.json",
    "fiftyone": "{out}/samples.json",
}


@click.command
@store_argument
@click.option("--n", required=True, type=WholeRange(1), help="How many images, about.")
@click.option("--by", type=click.Choice(WAYS), default="random", show_default=True)
@click.option("--against", default="", metavar="RUN", help="The other run of --by disagreement.")
@click.option("--to", required=True, type=click.Choice(TOOLS))
@click.option("--out", required=True, help="Folder to make, or HTML file of --to page.")
@read_run_option
@click.option("--seed", default=0, show_default=True)
@click.option("--images/--no-images", default=True, help="Copy the images too.  [default: images]")
@vocabulary_option
def sample(store: str, to: Any, out: str, vocabulary: str | None, images: bool, **options: Any) -> None:
    """Draw labelled images of STORE for people to review, and write them for the tool that they review with.

    Each image is drawn by itself, with a probability that is kept. So what people say of the drawn images tells of all,
    also where images are drawn that matter more: those whose labels are uncertain, on which another run disagrees, or
    that have rare names. The number of images is about N.

    --to page writes one HTML file with the pictures, which needs no server: whoever opens it decides by mouse, touch or
    keyboard, and saves a file that comes back.

    \b
    tagstream sample STORE --n 500 --to page --out review.html
    tagstream review import STORE review-random-1a2b3c4d-ada.json --from page
    tagstream recall STORE --truth reviews
    """
    if to == "page":
        check_page(out, "what people review with")
        if not images:
            raise click.UsageError("--no-images goes with other tools; a page has pictures")
    run = find_chosen_run(store, options["run"])
    against = options["against"] and find_chosen_run(store, options["against"])
    draw = Draw(by=options["by"], n=options["n"], seed=options["seed"], against=against)
    words = read_vocabulary(vocabulary)
    record, written = sample_for_review(
        SampleRequest(store=store, run=run, draw=draw, to=to, out=out, vocabulary=words, images=images)
    )
    click.echo(f"Drew {record.n_drawn:,} of {record.n_images:,} labelled images of run {run}, sample {record.sample}")
    click.echo(f"{written.n_images:,} images with {written.n_labels:,} labels are in {out}")
    click.echo(f"next: {_DO[to].format(out=out)}, then")
    click.echo("  " + to_paste("review", "import", store, _BACK[to].format(out=out), "--from", to, "--run", run))
    for note in written.notes:
        click.echo(f"Note: {printable(note)}", err=True)
