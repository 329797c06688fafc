"""`tagstream export`: writes a run's images and labels in the format of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jobs.console.chosen_run import find_chosen_run
from jobs.console.live_line import LiveLine, clock
from jobs.console.options import (
    EXISTING_FILE,
    FiniteRange,
    WholeRange,
    labels_options,
    read_run_option,
    store_argument,
    vocabulary_option,
)
from pipeline.export.job import Export, ExportRequest
from pipeline.export.selection import Selection
from pipeline.naming.thresholds import read_thresholds
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.text import printable

_FORMATS = ["coco", "fiftyone", "label-studio", "hf", "csv"]
_NEXT = {
    "coco": 'pycocotools.coco.COCO("{out}/annotations/labels_predictions.json")',
    "fiftyone": 'fiftyone.Dataset.from_dir("{out}", fiftyone.types.FiftyOneDataset)',
    "label-studio": "a project with {out}/config.xml, then import {out}/tasks.json",
    "hf": 'datasets.load_dataset("{out}")',
    "csv": "{out}/images.csv, labels.csv, truth.csv",
}


@click.command
@store_argument
@click.option("--to", "form", required=True, type=click.Choice(_FORMATS))
@click.option("--out", required=True, help="Folder to make.")
@read_run_option
@click.option("--where", metavar="SQL", help="Only images that meet this condition.")
@click.option("--sample", type=WholeRange(min=1), metavar="N", help="Only N of them, drawn at random by --seed.")
@click.option("--seed", default=0, show_default=True)
@click.option("--min-score", type=FiniteRange(), help="Only labels of at least this score.")
@click.option("--images", is_flag=True, help="Copy the images too, from the source that was labelled.")
@labels_options
@vocabulary_option
@click.option("--language", metavar="CODE", help="Write names as the vocabulary's [display.CODE] has them.")
@click.option("--thresholds", type=EXISTING_FILE, help="Only labels that reach these thresholds.")
def export(form: Any, images: bool, vocabulary: str | None, thresholds: str | None, **options: Any) -> None:
    """Write the labelled images of a run of STORE, with labels and given truth, in the format of another tool.

    Labels are written by their names in the vocabulary; labels that it denies, does not allow or calls sensitive are
    left out. The condition of --where is about the columns of `images`; it can query the labels and the truth of this
    run.

    \b
    tagstream export STORE --to hf --out dogs --images --where "image_id IN (SELECT image_id FROM images_with('dog'))"
    tagstream export STORE --to label-studio --out review --sample 500 --seed 1 --images
    """
    chosen = Selection(**{name: options.pop(name) for name in ("where", "sample", "seed", "min_score")})
    words = read_vocabulary(vocabulary)
    learned = None if thresholds is None else read_thresholds(thresholds)
    options["run"] = find_chosen_run(options["store"], options["run"])
    request = ExportRequest(to=form, selection=chosen, vocabulary=words, thresholds=learned, images=images, **options)
    exported = Export(request)
    with LiveLine(lambda s: f"{_describe(exported)} · {clock(s)} elapsed"):
        exported.write()
    _print_result(exported, options["out"])


def _describe(exported: Export) -> str:
    if not exported.n_chosen:
        return "choosing images"
    return f"{exported.n_images:,}/{exported.n_chosen:,} images"


def _print_result(exported: Export, out: str) -> None:
    request = exported.request
    click.echo(
        f"Exported {exported.n_images:,} images with {exported.n_labels:,} labels of run {exported.run} to {out}"
    )
    click.echo(f"next: {_NEXT[request.to].format(out=out)}")
    if request.to == "label-studio" and request.images:
        click.echo("The images are shown where Label Studio runs with")
        click.echo("  LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true")
        click.echo(f"  LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={Path(out).absolute().parent}")
        click.echo(f"and the project has the local storage {Path(out).absolute() / 'data'}")
    for note in exported.notes:
        click.echo(f"Note: {printable(note)}", err=True)
