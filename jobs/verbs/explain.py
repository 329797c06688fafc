"""`tagstream explain`: what the model looked at."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from model import Explanation
    from pipeline.catalog.result_file import ResultFile
    from pipeline.explanation.subject import Subject

_SUFFIXES = (".html", ".png")


@click.command(short_help="Show where a model looked for each label of an image.")
@click.argument("image")
@click.option("--out", required=True, metavar="FILE", help=".html or .png, local or s3://.")
@click.option("--model", help="Folder, hub id, s3:// URL, or demo.  [default: the run's]")
@click.option("--store", help="IMAGE is the key of one of its images.")
@click.option("--run", help="Which run of the store.  [default: the only one]")
@click.option("--top-k", type=click.IntRange(1, 200), help="Labels to explain.  [default: the run's, or 10]")
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
def explain(
    image: str,
    out: str,
    model: str | None,
    store: str | None,
    run: str | None,
    top_k: int | None,
    overwrite: bool,
) -> None:
    """Label IMAGE, and show for each label the attention of its tokens to the patches of the image.

    IMAGE is a file, local or s3://; with --store the key of an image, which is read from the source that was labelled
    and labelled with the settings of its run. Where shards share a key it is SHARD#KEY.

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
    from jobs.console.output import print_rows
    from pipeline.catalog.result_file import find_result_file
    from pipeline.explanation.subject import explain as explain_subject
    from pipeline.explanation.subject import find_file, find_image

    file = find_result_file(out, store, overwrite=overwrite)
    # One of the two is given: without a store the model is.
    subject = find_image(store, run, image, model, top_k) if store else find_file(image, str(model), top_k)
    explanation = explain_subject(subject)
    _write(explanation, subject, suffix, file)
    print_rows(["label", "score"], [(explained.label.text, explained.label.score) for explained in explanation.labels])
    click.echo(f"Written: {out}")


def _write(explanation: Explanation, subject: Subject, suffix: str, file: ResultFile) -> None:
    with file.open() as stream:
        if suffix == ".png":
            from pipeline.explanation.drawing import write_picture

            write_picture(explanation, subject.address, stream)
        else:
            from pipeline.explanation.page import explanation_page

            stream.write(explanation_page(explanation, subject).encode())
