"""`tagstream explain`: where the model looked for each label of an image."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import click

from jobs.console.chosen_run import find_chosen_run
from jobs.console.options import WholeRange, overwrite_option, read_run_option
from jobs.console.output import print_rows
from pipeline.catalog.result_file import ResultFile, find_result_file
from pipeline.explanation.subject import Subject, find_file, find_image, find_strangeness
from pipeline.explanation.subject import explain as explain_subject

if TYPE_CHECKING:
    from model import Explanation

_SUFFIXES = (".html", ".png")


@click.command
@click.argument("image")
@click.option("--out", required=True, metavar="FILE", help="Page or picture to write: .html or .png, local or s3://.")
@click.option("--model", help="As for `label`.  [default: the run's]")
@click.option("--store", help="Store that has IMAGE, which is then a key.")
@read_run_option
@click.option("--top-k", type=WholeRange(1, 200), help="Labels to explain.  [default: the run's, or 10]")
@overwrite_option
def explain(
    image: str,
    out: str,
    model: str | None,
    store: str | None,
    run: str | None,
    top_k: int | None,
    overwrite: bool,
) -> None:
    """Label IMAGE, and show for each label how much its tokens attend to each patch of the image.

    IMAGE is a file, local or s3://. With --store it is the key of an image: the image is read from the source of its
    run and labelled with the run's settings. Where several shards have that key, IMAGE is SHARD#KEY.

    \b
    tagstream explain photo.jpg --model MODEL --out photo.html
    tagstream explain scene-0000000 --store STORE --out scene.png
    """
    suffix = PurePosixPath(out).suffix.lower()
    if suffix not in _SUFFIXES:
        raise click.UsageError(f"--out is {out}; expected a name in .html or .png")
    if store is None and run is not None:
        raise click.UsageError("--run goes with --store STORE")
    if store is None and model is None:
        raise click.UsageError("there is no --model; a file needs one, the key of an image in a store --store")

    file = find_result_file(out, store, overwrite=overwrite)
    # Without a store there is a model, as was checked above.
    subject = (
        find_image(store, find_chosen_run(store, run), image, model, top_k)
        if store
        else find_file(image, str(model), top_k)
    )
    explanation = explain_subject(subject)
    note = find_strangeness(subject)
    _write(explanation, subject, suffix, file, note)
    if note:
        click.echo(f"Note: {note}.", err=True)
    print_rows(["label", "score"], [(explained.label.text, explained.label.score) for explained in explanation.labels])
    click.echo(f"Written: {out}")


def _write(explanation: Explanation, subject: Subject, suffix: str, file: ResultFile, note: str | None) -> None:
    # Bring in torch, which takes seconds to import.
    from pipeline.explanation.drawing import write_picture
    from pipeline.explanation.page import explanation_page

    with file.open() as stream:
        if suffix == ".png":
            write_picture(explanation, subject.address, stream)
        else:
            stream.write(explanation_page(explanation, subject, note).encode())
