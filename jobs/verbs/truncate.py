"""`tagstream truncate`: cuts a model's decoder to its first blocks."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.errors import TagstreamError
from pipeline.storage.model_cache import fetch_recognizer


@click.command
@click.argument("model")
@click.option("--blocks", required=True, type=int, help="Decoder blocks to keep.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the smaller model.")
def truncate(model: str, blocks: int, out: Path) -> None:
    """Keep the first blocks of MODEL's decoder. The smaller model needs training; MODEL itself may be its teacher.

    \b
    tagstream truncate ./nxtp --blocks 1 --out ./nxtp-1
    tagstream train SOURCE --init ./nxtp-1 --teacher ./nxtp --out ./nxtp-1-taught
    """
    # Bring in torch, which takes seconds to import.
    from transformers.utils import logging

    from model import Recognizer
    from model.training.truncation import truncate as cut

    logging.disable_progress_bar()
    if out.exists() and any(out.iterdir()):
        raise TagstreamError(f"{out} is not empty; name a new folder with --out")
    recognizer = Recognizer.from_pretrained(fetch_recognizer(model), device="cpu", dtype="stored")
    try:
        smaller = cut(recognizer, blocks)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    smaller.save_pretrained(out)
    before, after = (sum(part.numel() for part in of.module.parameters()) for of in (recognizer, smaller))
    click.echo(f"{before:,} parameters -> {after:,}, {blocks} decoder blocks: {out}")
