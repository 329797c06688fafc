"""`tagstream score`: scores of a list of names for a handful of images."""

from __future__ import annotations

import click

from jobs.console.options import EXISTING_FILE, WholeRange, config_option, format_option, model_option
from jobs.console.output import print_rows
from jobs.verbs.label import label_settings
from pipeline.naming.image_scores import ImageScorer
from pipeline.naming.name_list import DEFAULT_TOP, read_names
from pipeline.settings.labelling import VIEWS_IGNORED


@click.command
@click.argument("images", nargs=-1, required=True)
@click.option("--names", required=True, type=EXISTING_FILE, help="One name a line, or a vocabulary (.toml, .csv).")
@model_option
@click.option("--top", type=WholeRange(0), default=DEFAULT_TOP, show_default=True, help="Names an image; 0: all.")
@config_option("TOML with settings of `label`, such as views.")
@format_option("table", "csv", "json")
def score(images: tuple[str, ...], names: str, model: str, top: int, config: str | None, output: str) -> None:
    """Score the names of a list for IMAGES: files, local or s3://.

    The score of a name is the probability that the model writes it, in any of its spellings. `tagstream label --names`
    scores a whole source, and alike under the same settings.

    \b
    tagstream score photo.jpg --names animals.txt --model MODEL
    tagstream score photo.jpg --names animals.txt --model MODEL --config label.toml
    """
    scorer = ImageScorer(read_names(names, top), model, label_settings(config, {}))
    if scorer.ignores_views:
        click.echo(f"Note: {VIEWS_IGNORED}.", err=True)
    found = scorer.score(list(dict.fromkeys(images)))
    rows = ((scored.image, scored.rank, scored.name, scored.score) for scored in found)
    print_rows(["image", "rank", "name", "score"], rows, output)
